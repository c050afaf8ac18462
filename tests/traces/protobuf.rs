//! As much of protobuf, and of OTLP in it, as it takes to read spans: field numbers and types from the protocol's own
//! definition.

use std::collections::BTreeMap;

/// One field of a message.
enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message in their order, by number.
fn fields(mut message: &[u8]) -> Vec<(u64, Field<'_>)> {
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let field = match tag & 7 {
            0 => Field::Number(varint(&mut message)),
            1 => Field::Number(u64::from_le_bytes(take(&mut message, 8).try_into().unwrap())),
            2 => {
                let length = usize::try_from(varint(&mut message)).unwrap();
                Field::Bytes(take(&mut message, length))
            }
            5 => Field::Number(u32::from_le_bytes(take(&mut message, 4).try_into().unwrap()).into()),
            other => panic!("no wire type: {other}"),
        };
        found.push((tag >> 3, field));
    }
    found
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> &'a [u8] {
    let (taken, rest) = bytes.split_at(length);
    *bytes = rest;
    taken
}

fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for place in 0.. {
        let byte = take(bytes, 1)[0];
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte < 0x80 {
            break;
        }
    }
    value
}

/// The messages in the fields of this number.
fn messages(message: &[u8], number: u64) -> Vec<&[u8]> {
    let found = fields(message).into_iter().filter(|(found, _)| *found == number);
    found
        .filter_map(|(_, field)| match field {
            Field::Bytes(bytes) => Some(bytes),
            Field::Number(_) => None,
        })
        .collect()
}

fn number(message: &[u8], number: u64) -> u64 {
    let found = fields(message).into_iter().find(|(found, _)| *found == number);
    found.map_or(0, |(_, field)| match field {
        Field::Number(value) => value,
        Field::Bytes(_) => panic!("field {number} is no number"),
    })
}

fn hexadecimal(message: &[u8], number: u64) -> String {
    messages(message, number).first().map(|bytes| data_encoding::HEXLOWER.encode(bytes)).unwrap_or_default()
}

fn text(message: &[u8], number: u64) -> String {
    messages(message, number).first().map(|bytes| String::from_utf8(bytes.to_vec()).unwrap()).unwrap_or_default()
}

/// Names and values, those that are numbers in digits.
fn attributes(message: &[u8], field: u64) -> BTreeMap<String, String> {
    let read = |pair: &[u8]| {
        let value = messages(pair, 2)[0];
        let value = match messages(value, 1).first() {
            Some(_) => text(value, 1),
            None => number(value, 3).to_string(),
        };
        (text(pair, 1), value)
    };
    messages(message, field).into_iter().map(read).collect()
}

/// A span.
#[derive(Debug)]
pub struct Span {
    pub trace: String,
    pub id: String,
    pub parent: String,
    pub name: String,
    /// 2 for a server's, 3 for a client's.
    pub kind: u64,
    pub started: u64,
    pub ended: u64,
    pub attributes: BTreeMap<String, String>,
    /// 2 for an error.
    pub status: u64,
    /// Of the service that it is from.
    pub resource: BTreeMap<String, String>,
}

/// The spans in the body of a request to `/v1/traces`.
pub fn spans(body: &[u8]) -> Vec<Span> {
    let mut spans = Vec::new();
    for of_resource in messages(body, 1) {
        for span in messages(of_resource, 2).into_iter().flat_map(|of_scope| messages(of_scope, 2)) {
            spans.push(Span {
                trace: hexadecimal(span, 1),
                id: hexadecimal(span, 2),
                parent: hexadecimal(span, 4),
                name: text(span, 5),
                kind: number(span, 6),
                started: number(span, 7),
                ended: number(span, 8),
                attributes: attributes(span, 9),
                status: messages(span, 15).first().map_or(0, |status| number(status, 3)),
                resource: messages(of_resource, 1).first().map(|one| attributes(one, 1)).unwrap_or_default(),
            });
        }
    }
    spans
}
