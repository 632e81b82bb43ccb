//! A commit, in full and as people read it.

use std::str::FromStr;

/// The annotation on every document and on the pod template that names the commit, all 40 digits.
pub(crate) const COMMIT: &str = "request-info.dev/commit";

/// A commit in full: 40 lower-case hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Commit(String);

impl Commit {
    /// All 40 digits.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Commit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(bad) = text.chars().find(|c| !matches!(c, '0'..='9' | 'a'..='f')) {
            return Err(format!("{bad:?} is not a lower-case hexadecimal digit; `git rev-parse HEAD` prints a commit"));
        }
        if text.len() != 40 {
            return Err(format!("it has {} digits instead of 40; `git rev-parse {text}` prints them all", text.len()));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The first 12 digits, as people read them; anything shorter, or not a commit, as it is.
pub(crate) fn short(commit: &str) -> &str {
    commit.get(..12).unwrap_or(commit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_forty_lower_case_digits() {
        let sha = "3f9c2ab17d043f9c2ab17d043f9c2ab17d043f9c";
        let upper = sha.to_uppercase();
        for (text, is_good) in [(sha, true), (&upper, false), ("3f9c2ab17d04", false), ("HEAD", false), ("", false)] {
            assert_eq!(text.parse::<Commit>().is_ok(), is_good, "{text:?}");
        }
    }
}
