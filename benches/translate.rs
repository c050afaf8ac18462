//! CPU time of one translation, by cell and number of layers: a JSON object a line on stdout.
//!
//! A schema 1 is signed by its cell. What the signature costs is measured by signing the same payload alone, in turn
//! with the cell, and taken off.

use std::error::Error;
use std::io::Write as _;

use bytes::Bytes;
use schemabridge::image::digest::Digest;
use schemabridge::image::manifest::Manifest;
use schemabridge::image::media_type::Format;
use schemabridge::translate::{self, SigningKey, Source};
use serde_json::{Value, json};

// The product's.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Failed = Box<dyn Error + Send + Sync>;

const LAYERS: [usize; 7] = [16, 32, 64, 128, 256, 512, 1024];
const CELLS: [(Format, Format); 4] = [
    (Format::Schema2, Format::Schema1),
    (Format::Oci, Format::Schema1),
    (Format::Oci, Format::Schema2),
    (Format::Schema2, Format::Oci),
];
/// Each figure is the median of so many batches.
const BATCHES: usize = 5;
/// The clock of a thread's CPU time moves in ticks of up to 4 ms; a batch is long beside them.
const BATCH_NANOSECONDS: u64 = 60_000_000;

fn main() -> Result<(), Failed> {
    for (stored, target) in CELLS {
        for layers in LAYERS {
            measure(stored, target, layers)?;
        }
    }
    Ok(())
}

fn measure(stored: Format, target: Format, layers: usize) -> Result<(), Failed> {
    let config = config(layers);
    let manifest = Manifest::parse(manifest(stored, &config, layers))?;
    let (repository, tag, key) = ("bench/image".parse()?, "latest".parse()?, SigningKey::generate([7; 32])?);
    let cell = translate::cell(stored, target).ok_or("there is no such cell")?;
    let config = translate::config_needed(&manifest, target).then_some(config.as_ref());
    let source = Source {
        manifest: &manifest,
        config,
        repository: &repository,
        tag: &tag,
        signing_key: Some(&key),
        learnt: None,
    };
    let derived = cell(&source)?;
    let translation = || drop(std::hint::black_box(cell(std::hint::black_box(&source))));

    let report = |signature: bool, nanoseconds: u64| {
        let line = json!({
            "figure": "translate", "cell": format!("{stored} -> {target}"), "layers": layers, "signature": signature,
            "bytes": derived.bytes.len(), "cpu_ns": nanoseconds, "ns_per_layer": nanoseconds / layers as u64,
        });
        writeln!(std::io::stdout(), "{line}")
    };
    if target == Format::Schema1 {
        let unsigned = Manifest::parse(without_signature(&derived.bytes)?)?;
        let signature = || drop(std::hint::black_box(translate::signed(std::hint::black_box(&unsigned), &key)));
        let mut both = Vec::new();
        for _ in 0..BATCHES {
            both.push((cpu_of(&translation)?, cpu_of(&signature)?));
        }
        report(true, median(both.iter().map(|(whole, _)| *whole)))?;
        report(false, median(both.iter().map(|(whole, signature)| whole.saturating_sub(*signature))))?;
    } else {
        let batches = (0..BATCHES).map(|_| cpu_of(&translation)).collect::<Result<Vec<_>, _>>()?;
        report(false, median(batches.into_iter()))?;
    }
    Ok(())
}

/// Nanoseconds of CPU for one run, over a batch of them.
fn cpu_of(work: &impl Fn()) -> Result<u64, Failed> {
    let started = cpu_nanoseconds()?;
    let mut runs = 0;
    loop {
        for _ in 0..16 {
            work();
        }
        runs += 16;
        let used = cpu_nanoseconds()? - started;
        if used >= BATCH_NANOSECONDS {
            return Ok(used / runs);
        }
    }
}

/// What this thread has used of the processor, whoever else used it in between.
fn cpu_nanoseconds() -> Result<u64, Failed> {
    let line = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(line.split(' ').next().unwrap_or_default().parse()?)
}

fn median(values: impl Iterator<Item = u64>) -> u64 {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The payload of a signed schema 1 as a document of its own.
fn without_signature(signed: &[u8]) -> Result<Bytes, Failed> {
    let (payload, _) =
        std::str::from_utf8(signed)?.split_once(",\n   \"signatures\": [").ok_or("there is no signature")?;
    Ok(format!("{payload}\n}}").into())
}

/// A config as BuildKit writes it, with a step without a layer after every second layer.
fn config(layers: usize) -> Bytes {
    let created = "2024-03-01T10:00:00.123456789Z";
    let history: Vec<Value> = (0..layers)
        .flat_map(|number| {
            let run = format!("RUN /bin/sh -c apt-get update && apt-get install -y package-{number} # buildkit");
            let step = json!({"created": created, "created_by": run, "comment": "buildkit.dockerfile.v0"});
            let empty = json!({"created": created, "created_by": format!("ENV NUMBER={number}"), "empty_layer": true});
            std::iter::once(step).chain((number % 2 == 1).then_some(empty))
        })
        .collect();
    let diff_ids: Vec<String> = (0..layers).map(|number| digest("diff", number)).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "created": created, "history": history,
        "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    config.to_string().into()
}

fn manifest(format: Format, config: &Bytes, layers: usize) -> Bytes {
    let (config_type, layer_type) = match format {
        Format::Oci => ("application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip"),
        _ => ("application/vnd.docker.container.image.v1+json", "application/vnd.docker.image.rootfs.diff.tar.gzip"),
    };
    let layers: Vec<Value> = (0..layers)
        .map(|number| json!({"mediaType": layer_type, "size": 1000 + number, "digest": digest("layer", number)}))
        .collect();
    let config = json!({
        "mediaType": config_type, "size": config.len(), "digest": Digest::sha256(config).to_string(),
    });
    let manifest = json!({"schemaVersion": 2, "mediaType": format.media_type(), "config": config, "layers": layers});
    manifest.to_string().into()
}

fn digest(of: &str, number: usize) -> String {
    Digest::sha256(format!("{of} {number}").as_bytes()).to_string()
}
