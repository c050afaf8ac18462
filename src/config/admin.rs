//! Who the operator is, to the admin listener.

use std::path::PathBuf;

use clap::Args;

/// The flags of the admin listener.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub struct AdminArguments {
    /// A file with a token of at least 32 characters, or several, one a line: the page, /api/* and /refresh are for whoever
    /// shows one, as a bearer token or as a password. Without it they are open to this machine alone. Read again when it
    /// changes
    #[arg(long, env = "SCHEMABRIDGE_ADMIN_TOKEN_FILE", value_name = "FILE")]
    pub admin_token_file: Option<PathBuf>,
}

/// A token that opens the admin listener. Has no `Debug`.
pub struct AdminToken(String);

impl AdminToken {
    /// The token itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl AdminArguments {
    /// The first token of the file, for whoever asks a gateway that has the same.
    pub fn token(&self) -> Result<Option<AdminToken>, String> {
        let Some(file) = &self.admin_token_file else { return Ok(None) };
        let unusable = |reason: &str| format!("--admin-token-file: {}: {reason}", file.display());
        let text = std::fs::read_to_string(file).map_err(|error| unusable(&error.to_string()))?;
        let token = text.lines().map(str::trim).find(|line| !line.is_empty() && !line.starts_with('#'));
        match token {
            None => Err(unusable("has no token")),
            Some(token) if !token.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Err(unusable("expected a token of printable ASCII characters without blanks"))
            }
            Some(token) => Ok(Some(AdminToken(token.to_owned()))),
        }
    }
}
