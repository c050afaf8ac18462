//! The `User-Agent` of a container client: product tokens, and the version and the platform that they carry.
//!
//! ```text
//! docker/1.9.1 go/go1.4.3 git-commit/a34a1d5 kernel/3.16.0-4-amd64 os/linux arch/amd64 [UpstreamClient(…)]
//! containerd/v1.7.28   buildkit/v0.31   cri-o/1.36.3 go/go1.25.1 os/linux arch/amd64   skopeo/1.22.2
//! cosign/v3.1.2 (linux; amd64) go-containerregistry/v0.20.6   Apptainer/1.5.3 (Linux amd64) Go/1.25.1
//! ```

use std::borrow::Cow;
use std::fmt;

/// The most bytes of a `User-Agent` that are looked at. Docker's is under 300, and what matters stands at its start.
pub const USER_AGENT_BYTES_MAX: usize = 2048;

/// From Docker 1.11 on, what follows is the `User-Agent` of whoever called the engine's API: another program's version.
const UPSTREAM_CLIENT: &[u8] = b" UpstreamClient(";

/// A version as products write it: three numbers. What follows them (`-ce`, `+dfsg1`, `~ds1`) does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// The first number.
    pub major: u32,
    /// The second number, 0 where there is none.
    pub minor: u32,
    /// The third number, 0 where there is none.
    pub patch: u32,
}

impl Version {
    /// The version `major.minor.patch`.
    pub const fn new(major: u32, minor: u32, patch: u32) -> Self {
        Self { major, minor, patch }
    }

    /// Reads `1.6.2`, `v0.12`, `17.03.2-ce`, `20.10.24+dfsg1`; `None` for what does not begin with a number (`dev`).
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
        let mut numbers = text.get(..end)?.split('.');
        let major = numbers.next()?.parse().ok()?;
        let mut next = || match numbers.next() {
            None | Some("") => Some(0),
            Some(number) => number.parse().ok(),
        };
        Some(Self { major, minor: next()?, patch: next()? })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// One product of a `User-Agent`: `docker/1.9.1`, a bare `Watchtower`, `cosign/v3.1.2 (linux; amd64)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Product<'a> {
    /// What stands before the `/`, case as written.
    pub name: &'a str,
    /// What stands after it, empty where there is none.
    pub version: &'a str,
    /// The comment that follows the product, without its parentheses; empty where there is none.
    pub comment: &'a str,
}

/// The `User-Agent` of one request, up to ` UpstreamClient(`.
#[derive(Clone, Debug, Default)]
pub struct UserAgent<'a> {
    text: Cow<'a, str>,
}

impl<'a> UserAgent<'a> {
    /// Reads raw header bytes. Never fails: what is not UTF-8 matches no product.
    pub fn parse(header: &'a [u8]) -> Self {
        let header = header.get(..USER_AGENT_BYTES_MAX).unwrap_or(header);
        let end = header.windows(UPSTREAM_CLIENT.len()).position(|window| window == UPSTREAM_CLIENT);
        Self { text: String::from_utf8_lossy(header.get(..end.unwrap_or(header.len())).unwrap_or(header)) }
    }

    /// The products in the order written.
    pub fn products(&self) -> impl Iterator<Item = Product<'_>> {
        let mut rest: &str = &self.text;
        std::iter::from_fn(move || next_product(&mut rest))
    }

    /// The first product of that name.
    pub fn product(&self, name: &str) -> Option<Product<'_>> {
        self.products().find(|product| product.name == name)
    }

    /// The operating system and the architecture in Go's words, from the products that say them: Docker and CRI-O in
    /// tokens of their own, cosign and Apptainer in a comment. Never a variant: none of them has one.
    pub fn platform(&self) -> Option<(String, &str)> {
        let (os, architecture) = if self.product("docker").or_else(|| self.product("cri-o")).is_some() {
            (self.product("os")?.version, self.product("arch")?.version)
        } else if let Some(cosign) = self.product("cosign") {
            let (os, architecture) = cosign.comment.split_once(';')?;
            (os.trim(), architecture.trim())
        } else {
            self.product("Apptainer")?.comment.split_once(' ')?
        };
        let is_word = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric());
        (is_word(os) && is_word(architecture)).then(|| (os.to_ascii_lowercase(), architecture))
    }
}

/// Takes the next product and the comment after it off the front of `rest`.
fn next_product<'a>(rest: &mut &'a str) -> Option<Product<'a>> {
    loop {
        *rest = rest.trim_start();
        if rest.is_empty() {
            return None;
        }
        if rest.starts_with('(') {
            take_comment(rest);
            continue;
        }
        let end = rest.find([' ', '\t', '(']).unwrap_or(rest.len());
        let (token, after) = rest.split_at(end);
        *rest = after.trim_start();
        let comment = if rest.starts_with('(') { take_comment(rest) } else { "" };
        let (name, version) = token.split_once('/').unwrap_or((token, ""));
        return Some(Product { name, version, comment });
    }
}

/// Takes a comment, with the comments inside it, off the front of `rest`. One that is never closed goes to the end.
fn take_comment<'a>(rest: &mut &'a str) -> &'a str {
    let mut depth = 0_usize;
    for (position, byte) in rest.bytes().enumerate() {
        match byte {
            b'(' => depth = depth.saturating_add(1),
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            let comment = rest.get(1..position).unwrap_or_default();
            *rest = rest.get(position.saturating_add(1)..).unwrap_or_default();
            return comment;
        }
    }
    let comment = rest.get(1..).unwrap_or_default();
    *rest = "";
    comment
}
