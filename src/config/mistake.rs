//! What clap says of a mistake, in one line and without secrets.

use clap::error::ContextKind;

/// Its sentence, without the help around it.
pub fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let sentence: Vec<&str> = text.lines().take_while(|line| !line.is_empty()).map(str::trim).collect();
    let line = without_password(&sentence.join(" "));
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

/// The same of a value that stands in a file, where the flag has this name.
pub(super) fn in_words_of_the_file(error: &clap::Error, key: &str) -> String {
    let flag = error.get(ContextKind::InvalidArg).map(ToString::to_string).unwrap_or_default();
    one_line(error).replacen(&format!("'{flag}'"), &format!("`{key}`"), 1)
}

/// A mistyped value is repeated, but not where it may hold a password: one with an `@` is a URL with a user, however odd.
fn without_password(line: &str) -> String {
    const BEFORE: &str = "invalid value '";
    const AFTER: &str = "' for '--";
    let (Some(start), Some(end)) = (line.find(BEFORE), line.rfind(AFTER)) else { return line.to_owned() };
    match line.get(start + BEFORE.len()..end) {
        Some(value) if value.contains('@') => {
            let (before, after) = (line.get(..start).unwrap_or_default(), line.get(end..).unwrap_or_default());
            format!("{before}{BEFORE}[redacted]{after}")
        }
        _ => line.to_owned(),
    }
}
