//! Layers that real engines unpack: a tar of a few small files, and the same in gzip.

/// A file of a layer: its path without a leading slash, and its text.
pub type File<'a> = (&'a str, &'a str);

const BLOCK: usize = 512;

/// A tar (POSIX ustar) of `files`, each after the folders that lead to it.
pub fn tar(files: &[File<'_>]) -> Vec<u8> {
    let mut archive = Vec::new();
    let mut folders = Vec::new();
    for (path, text) in files {
        for (end, _) in path.match_indices('/') {
            let folder = &path[..=end];
            if !folders.contains(&folder) {
                folders.push(folder);
                archive.extend_from_slice(&header(folder, 0, 0o755, b'5'));
            }
        }
        archive.extend_from_slice(&header(path, text.len(), 0o644, b'0'));
        archive.extend_from_slice(text.as_bytes());
        archive.resize(archive.len().next_multiple_of(BLOCK), 0);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    archive
}

fn header(path: &str, size: usize, mode: u32, kind: u8) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, path.as_bytes());
    put(100, format!("{mode:07o}\0").as_bytes());
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    let sum = block.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// `bytes` as a gzip member (RFC 1952) of stored blocks (RFC 1951 section 3.2.4): the same bytes everywhere.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    const STORED_MAX: usize = 65_535;
    let mut member = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let count = bytes.len().div_ceil(STORED_MAX).max(1);
    for number in 0..count {
        let part = &bytes[number * STORED_MAX..bytes.len().min((number + 1) * STORED_MAX)];
        let length = u16::try_from(part.len()).unwrap();
        member.push(u8::from(number + 1 == count));
        member.extend_from_slice(&length.to_le_bytes());
        member.extend_from_slice(&(!length).to_le_bytes());
        member.extend_from_slice(part);
    }
    member.extend_from_slice(&crc32(bytes).to_le_bytes());
    member.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_le_bytes());
    member
}

/// `bytes` as a zstd frame (RFC 8878) of raw blocks: the same bytes everywhere.
pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    const BLOCK_MAX: usize = 128 << 10;
    // The magic number, then a frame header: one segment, and its size in four bytes.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0b1010_0000];
    frame.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_le_bytes());
    let count = bytes.len().div_ceil(BLOCK_MAX).max(1);
    for number in 0..count {
        let part = &bytes[number * BLOCK_MAX..bytes.len().min((number + 1) * BLOCK_MAX)];
        let head = u32::try_from(part.len()).unwrap() << 3 | u32::from(number + 1 == count);
        frame.extend_from_slice(&head.to_le_bytes()[..3]);
        frame.extend_from_slice(part);
    }
    frame
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| (sum >> 1) ^ (0xedb8_8320 & (sum & 1).wrapping_neg()))
    })
}

/// The file that an archive of ours or of a tool holds under `path` (with or without a leading `/` or `./`), if any.
/// Reads ustar and old tar headers; long names are not looked for.
pub fn file_in_tar<'a>(archive: &'a [u8], path: &str) -> Option<&'a [u8]> {
    let mut rest = archive;
    while rest.len() >= BLOCK && rest[0] != 0 {
        let field = |from: usize, to: usize| {
            let bytes = &rest[from..to];
            std::str::from_utf8(bytes.split(|byte| *byte == 0).next().unwrap_or_default()).unwrap_or_default()
        };
        let size = usize::from_str_radix(field(124, 136).trim(), 8).ok()?;
        let name = field(0, 100).trim_start_matches("./").trim_start_matches('/');
        if name == path && matches!(rest[156], 0 | b'0') {
            return rest.get(BLOCK..BLOCK + size);
        }
        rest = rest.get(BLOCK + size.next_multiple_of(BLOCK)..)?;
    }
    None
}
