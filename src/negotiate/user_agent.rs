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

    /// All of it.
    pub fn as_str(&self) -> &str {
        &self.text
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

impl UserAgent<'_> {
    /// The build of Windows that a Docker engine runs on: `kernel/10.0 17763 (17763.1.amd64fre…)`.
    pub fn windows_build(&self) -> Option<u32> {
        let mut after_kernel = self.products().skip_while(|product| product.name != "kernel").skip(1);
        after_kernel.next()?.name.parse().ok()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn names(user_agent: &str) -> Vec<String> {
        let parsed = UserAgent::parse(user_agent.as_bytes());
        parsed.products().map(|product| format!("{}={}", product.name, product.version)).collect()
    }

    fn platform(user_agent: &str) -> Option<String> {
        let parsed = UserAgent::parse(user_agent.as_bytes());
        parsed.platform().map(|(os, architecture)| format!("{os}/{architecture}"))
    }

    #[test]
    fn versions_are_read_as_products_write_them() {
        for (text, expected) in [
            ("1.6.2", Version::new(1, 6, 2)),
            ("v0.31", Version::new(0, 31, 0)),
            ("17.03.2-ce", Version::new(17, 3, 2)),
            ("20.10.24+dfsg1", Version::new(20, 10, 24)),
            ("1.6.20~ds1", Version::new(1, 6, 20)),
            ("2.2.0+unknown", Version::new(2, 2, 0)),
            ("28", Version::new(28, 0, 0)),
            ("1.13.0-rc4", Version::new(1, 13, 0)),
        ] {
            assert_eq!(Version::parse(text), Some(expected), "{text}");
        }
        for text in ["dev", "library-import", "unknown-version", "", "v", ".", "(devel)", "99999999999.1"] {
            assert_eq!(Version::parse(text), None, "{text}");
        }
    }

    #[test]
    fn versions_are_ordered_by_number() {
        assert!(Version::new(1, 9, 1) < Version::new(1, 10, 0));
        assert!(Version::new(1, 13, 1) < Version::new(17, 3, 0));
        assert!(Version::new(19, 3, 4) < Version::new(19, 3, 15));
    }

    #[test]
    fn products_end_before_the_upstream_client() {
        let user_agent =
            "docker/20.10.24+dfsg1 go/go1.19.8 os/linux arch/amd64 UpstreamClient(docker/1.6.2 os/windows)";
        assert_eq!(names(user_agent), ["docker=20.10.24+dfsg1", "go=go1.19.8", "os=linux", "arch=amd64"]);
    }

    #[test]
    fn what_stands_in_a_comment_is_no_product() {
        let firefox = "Mozilla/5.0 (X11; Linux x86_64; docker/1.9.1 (nested)) Gecko/20100101 Firefox/128.0";
        assert_eq!(names(firefox), ["Mozilla=5.0", "Gecko=20100101", "Firefox=128.0"]);
        assert_eq!(names("a/1 (never closed docker/1.9.1"), ["a=1"]);
        assert_eq!(names("(only a comment)"), [""; 0]);
        assert_eq!(names("Watchtower"), ["Watchtower="]);
    }

    #[test]
    fn platforms_come_from_the_products_that_say_them() {
        assert_eq!(platform("docker/1.9.1 go/go1.4.3 os/linux arch/arm").as_deref(), Some("linux/arm"));
        assert_eq!(platform("docker/dev go/go1.21 os/windows arch/amd64").as_deref(), Some("windows/amd64"));
        assert_eq!(platform("cri-o/1.36.3 go/go1.25.1 os/linux arch/arm64").as_deref(), Some("linux/arm64"));
        let cosign = "cosign/v3.1.2 (linux; amd64) go-containerregistry/v0.20.6";
        assert_eq!(platform(cosign).as_deref(), Some("linux/amd64"));
        assert_eq!(platform("Apptainer/1.5.3 (Linux amd64) Go/1.25.1").as_deref(), Some("linux/amd64"));
    }

    #[test]
    fn platforms_come_from_nobody_else() {
        for user_agent in [
            "os/linux arch/arm",
            "containerd/v1.7.28",
            "docker/1.9.1 os/linux",
            "docker/1.9.1 os/../x arch/arm",
            "cosign/v3 (linux)",
            "",
        ] {
            assert_eq!(platform(user_agent), None, "{user_agent}");
        }
    }
}
