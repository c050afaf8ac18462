//! The table: who is translated into what. The only place that knows.

use super::Cell;
use super::oci_to_schema1::oci_to_schema1;
use super::oci_to_schema2::oci_to_schema2;
use super::schema1_to_oci::schema1_to_oci;
use super::schema1_to_schema2::schema1_to_schema2;
use super::schema2_to_oci::schema2_to_oci;
use super::schema2_to_schema1::schema2_to_schema1;
use crate::image::manifest::Manifest;
use crate::image::media_type::Format;

use Way::{AsStored, FallsBackToSchema1, NoTranslation, Translated};

/// What a client that reads one format gets of an image that is stored in another.
#[derive(Clone, Copy, Debug)]
pub enum Way {
    /// The stored bytes.
    AsStored,
    /// What this function makes of them.
    Translated(Cell),
    /// The stored schema 1: every client that reads schema 2 reads that too.
    FallsBackToSchema1,
    /// Nothing.
    NoTranslation,
}

/// The formats of a single image, in the order of the table's rows (what the client reads) and columns (what is stored).
pub const FORMATS: [Format; 3] = [Format::Schema1, Format::Schema2, Format::Oci];

/// Rows: what the client reads. Columns: what is stored.
#[rustfmt::skip]
pub const TABLE: [[Way; 3]; 3] = [
    // client reads  | stored schema 1    | stored schema 2                | stored OCI
    /* schema 1 */   [ AsStored,            Translated(schema2_to_schema1),  Translated(oci_to_schema1) ],
    /* schema 2 */   [ FallsBackToSchema1,  AsStored,                        Translated(oci_to_schema2) ],
    /* OCI      */   [ NoTranslation,       Translated(schema2_to_oci),      AsStored                   ],
];

/// Policy, not the table: where the operator opts in to upgrades, these stand in the place of the two entries of stored
/// schema 1 that do not answer. They read layers, which no other translation does.
#[rustfmt::skip]
pub const UPGRADES: [(Format, Cell); 2] = [
    // client reads    | stored schema 1
    (Format::Schema2,    schema1_to_schema2),
    (Format::Oci,        schema1_to_oci),
];

impl Way {
    /// The cell in the words of the product's table, for a client that reads `target`.
    pub fn words(&self, target: Format) -> &'static str {
        match (self, target) {
            (AsStored, _) => "as stored",
            (FallsBackToSchema1, _) => "no translation; the client falls back to schema 1",
            (NoTranslation, _) => "no translation available",
            (Translated(_), Format::Schema1) => "translated to schema 1",
            (Translated(_), Format::Schema2) => "translated to schema 2",
            (Translated(_), _) => "translated to OCI",
        }
    }
}

/// The table's entry for an image stored as `stored` and a client that reads `target`; none for formats that are not
/// those of a single image.
pub fn way(stored: Format, target: Format) -> Option<Way> {
    let place = |format| FORMATS.iter().position(|known| *known == format);
    TABLE.get(place(target)?)?.get(place(stored)?).copied()
}

/// The function that translates `stored` into `target`, where the table has one.
pub fn cell(stored: Format, target: Format) -> Option<Cell> {
    match way(stored, target) {
        Some(Translated(cell)) => Some(cell),
        Some(AsStored | FallsBackToSchema1 | NoTranslation) | None => None,
    }
}

/// The function that translates this document into `target`. A schema 2 that counts as an OCI manifest, because its
/// config type is not Docker's, has a translation into a proper schema 2 too.
pub fn cell_for(manifest: &Manifest, target: Format) -> Option<Cell> {
    cell(manifest.format(), target).or_else(|| cell(manifest.counts_as(), target))
}

/// The function that upgrades this document into `target`: only for stored schema 1, and only for whoever opted in.
pub fn upgrade_for(manifest: &Manifest, target: Format) -> Option<Cell> {
    let is_schema1 = manifest.format() == Format::Schema1;
    UPGRADES.into_iter().find(|(format, _)| is_schema1 && *format == target).map(|(_, cell)| cell)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_translations_and_nothing_else() {
        let cells: Vec<(Format, Format)> = Format::ALL
            .into_iter()
            .flat_map(|stored| Format::ALL.map(|target| (stored, target)))
            .filter(|(stored, target)| cell(*stored, *target).is_some())
            .collect();
        let expected = [
            (Format::Schema2, Format::Schema1),
            (Format::Schema2, Format::Oci),
            (Format::Oci, Format::Schema1),
            (Format::Oci, Format::Schema2),
        ];
        assert_eq!(cells, expected);
    }

    /// What the product's table promises without the policy stays what it is.
    #[test]
    fn upgrades_stand_only_where_the_table_has_no_answer_for_stored_schema_1() {
        for target in FORMATS {
            let is_upgraded = UPGRADES.iter().any(|(format, _)| *format == target);
            let is_open = matches!(way(Format::Schema1, target), Some(FallsBackToSchema1 | NoTranslation));
            assert_eq!(is_upgraded, is_open, "{target}");
        }
    }
}
