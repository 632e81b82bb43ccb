//! An image as a container names it: a repository, a tag that is the beginning of a commit, perhaps a digest.

use std::str::FromStr;

use anyhow::{Result, ensure};

use crate::commit::{Commit, short};

/// `REPOSITORY:TAG` or `REPOSITORY:TAG@sha256:DIGEST`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    whole: String,
    repository: usize,
    digest: Option<usize>,
}

impl Image {
    /// As it is written into the manifest.
    pub(crate) fn as_str(&self) -> &str {
        &self.whole
    }

    /// For example `sha256:…`, if one was given.
    pub(crate) fn digest(&self) -> Option<&str> {
        self.digest.map(|at| &self.whole[at..])
    }

    fn tag(&self) -> &str {
        let end = self.digest.map_or(self.whole.len(), |at| at - 1);
        &self.whole[self.repository + 1..end]
    }

    /// Refuses an image whose tag is not a prefix of `commit`, because it was built from something else.
    pub(crate) fn check_tag(&self, commit: &Commit) -> Result<()> {
        ensure!(
            self.tag().len() >= 7 && commit.as_str().starts_with(self.tag()),
            "the tag {:?} of --image {} is not a prefix of --commit {}: the tag must be at least its first 7 digits, as in {}:{}",
            self.tag(),
            self.whole,
            commit.as_str(),
            &self.whole[..self.repository],
            short(commit.as_str())
        );
        Ok(())
    }
}

impl FromStr for Image {
    type Err = String;

    /// The grammar is that of the distribution project's references.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
        if let Some(digest) = digest
            && !is_digest(digest)
        {
            return Err(format!("{digest:?} is not a digest: sha256: and 64 lower-case hexadecimal digits"));
        }
        let (repository, tag) = name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')).ok_or_else(|| {
            format!("it has no tag: give REPOSITORY:TAG{}", if digest.is_some() { "@DIGEST" } else { "" })
        })?;
        let (host, path) = match repository.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (Some(first), rest),
            _ => (None, repository),
        };
        if let Some(host) = host.filter(|host| !is_host(host)) {
            return Err(format!("{host:?} is not a host name with an optional port"));
        }
        if let Some(part) = path.split('/').find(|part| !is_path_component(part)) {
            return Err(format!(
                "{part:?} is not part of a repository's name: lower-case letters and digits, joined by '.', '_', '__' or '-'"
            ));
        }
        let of_tag = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        if tag.is_empty() || tag.len() > 128 || tag.starts_with(['.', '-']) || !tag.bytes().all(of_tag) {
            return Err(format!("{tag:?} is not a tag"));
        }
        let (repository, digest) = (repository.len(), digest.map(|_| name.len() + 1));
        Ok(Self { whole: text.to_owned(), repository, digest })
    }
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

fn is_host(host: &str) -> bool {
    let (name, port) = host.split_once(':').unwrap_or((host, "1"));
    port.parse::<u16>().is_ok_and(|port| port > 0)
        && name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        })
}

fn is_path_component(part: &str) -> bool {
    let of_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    part.starts_with(of_name)
        && part.ends_with(of_name)
        && part.split(of_name).all(|joint| matches!(joint, "" | "." | "_" | "__") || joint.bytes().all(|b| b == b'-'))
}

/// The digest in the `imageID` of a container's status. The name before it is the one under which the node first pulled
/// the content, so it may differ from the image's name:
/// <https://github.com/kubernetes/kubernetes/blob/v1.34.0/pkg/kubelet/kuberuntime/kuberuntime_container.go>
pub(crate) fn digest_of(image_id: &str) -> Option<&str> {
    let digest = image_id.rsplit_once('@').map_or(image_id, |(_, digest)| digest);
    let digest = digest.rsplit_once("://").map_or(digest, |(_, digest)| digest);
    (!digest.is_empty()).then_some(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "3f9c2ab17d043f9c2ab17d043f9c2ab17d043f9c";
    const DIGEST: &str = "sha256:0123456789012345678901234567890123456789012345678901234567890123";

    #[test]
    fn an_image_is_a_repository_and_a_tag_and_perhaps_a_digest() {
        for (text, is_good) in [
            ("web:1", true),
            ("library/web:3f9c2ab", true),
            ("localhost/web:1", true),
            ("localhost:5000/web:1", true),
            ("registry.example:443/a/b_c/d__e/f-g/h.i:V1.2_x-y", true),
            ("web", false),
            ("registry.example:5000/web", false),
            ("web:", false),
            ("web:.1", false),
            ("web:a b", false),
            ("Web:1", false),
            ("web_:1", false),
            ("a//b:1", false),
            ("a..b:1", false),
            ("registry.example:0/web:1", false),
            ("-registry.example/web:1", false),
            ("web@sha256:0123", false),
            ("web:1@sha256:0123", false),
            ("", false),
        ] {
            assert_eq!(text.parse::<Image>().is_ok(), is_good, "{text:?}");
        }
        let image: Image = format!("localhost:5000/web:1@{DIGEST}").parse().unwrap();
        assert_eq!((image.tag(), image.digest()), ("1", Some(DIGEST)));
        assert!(format!("localhost:5000/web@{DIGEST}").parse::<Image>().is_err());
    }

    #[test]
    fn a_tag_is_the_beginning_of_its_commit() {
        let commit: Commit = SHA.parse().unwrap();
        for (tag, is_good) in [
            (SHA, true),
            ("3f9c2ab17d04", true),
            ("3f9c2ab", true),
            ("3f9c2a", false),
            ("latest", false),
            ("81be09aa43f1", false),
        ] {
            for digest in ["", &format!("@{DIGEST}")] {
                let image: Image = format!("registry.example:5000/web:{tag}{digest}").parse().unwrap();
                assert_eq!(image.check_tag(&commit).is_ok(), is_good, "{tag}{digest}");
            }
        }
    }

    #[test]
    fn only_the_digest_of_an_image_id_counts() {
        for (id, digest) in [
            ("registry.example/a@sha256:01", Some("sha256:01")),
            ("docker-pullable://registry.example/a@sha256:01", Some("sha256:01")),
            ("docker://sha256:01", Some("sha256:01")),
            ("sha256:01", Some("sha256:01")),
            ("", None),
        ] {
            assert_eq!(digest_of(id), digest, "{id}");
        }
    }
}
