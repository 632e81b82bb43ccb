//! Whether one commit may replace another: newer ones may, and git knows which is newer.

use std::fmt;
use std::path::Path;
use std::process::Command;

use crate::commit::{Commit, short};

/// The relation of the commit to deploy to the one that runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Nothing runs yet.
    First,
    /// The same commit, which may be only partly deployed.
    Same,
    /// The live one is an ancestor, this many commits back.
    Newer(u32),
    /// What runs does not name its commit.
    Unlabelled,
    /// Not newer, or not known to be newer. Holds the reason and the remedy.
    Refused(String),
}

impl Order {
    /// Asks the git repository at `clone` whether `new` is newer than `live`, the commit in an annotation.
    pub(crate) fn of(live: Option<&str>, new: &str, clone: &Path) -> Self {
        let Some(live) = live else {
            return Self::Unlabelled;
        };
        if live == new {
            return Self::Same;
        }
        let repository = Repository(clone);
        let refused = |reason| Self::Refused(format!("{reason}; --ignore-order deploys it anyway"));
        repository.compare(live, new).unwrap_or_else(refused)
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => f.write_str("nothing runs there yet"),
            Self::Same => f.write_str("the same commit runs there"),
            Self::Newer(1) => f.write_str("1 commit older"),
            Self::Newer(commits) => write!(f, "{commits} commits older"),
            Self::Unlabelled => f.write_str("what runs there does not name its commit"),
            Self::Refused(reason) => f.write_str(reason),
        }
    }
}

struct Repository<'a>(&'a Path);

impl Repository<'_> {
    /// `Err` is a sentence for people.
    fn compare(&self, live: &str, new: &str) -> Result<Order, String> {
        let (live_short, new_short) = (short(live), short(new));
        if live.parse::<Commit>().is_err() {
            return Err(format!("what runs there names {live:?} as its commit, which is not a commit ID"));
        }
        for commit in [new, live] {
            if !self.answers(&["cat-file", "-e", &format!("{commit}^{{commit}}")])? {
                let remedy = if self.is_shallow()? { "git fetch --unshallow" } else { "git fetch --all" };
                let which = if commit == new { "to deploy" } else { "that runs" };
                return Err(format!(
                    "the commit {which}, {}, is unknown to the clone in {}: `{remedy}` may bring it",
                    short(commit),
                    self.0.display()
                ));
            }
        }
        if self.answers(&["merge-base", "--is-ancestor", live, new])? {
            let count = self.ask(&["rev-list", "--count", &format!("{live}..{new}")])?;
            return Ok(Order::Newer(count.parse().unwrap_or(0)));
        }
        if self.answers(&["merge-base", "--is-ancestor", new, live])? {
            return Err(format!("{new_short} is older than {live_short}, which runs"));
        }
        if self.is_shallow()? {
            return Err(format!(
                "this clone is too shallow to tell whether {new_short} is newer than {live_short}, which runs: `git fetch --unshallow`"
            ));
        }
        Err(format!("{new_short} does not contain {live_short}, which runs: the two have diverged, merge or rebase"))
    }

    fn is_shallow(&self) -> Result<bool, String> {
        Ok(self.ask(&["rev-parse", "--is-shallow-repository"])? == "true")
    }

    /// By git's exit code: 0 is yes, 1 is no, and `cat-file -e` exits with 128 if it cannot resolve a name.
    fn answers(&self, arguments: &[&str]) -> Result<bool, String> {
        let output = self.run(arguments)?;
        match (output.status.code(), arguments[0]) {
            (Some(0), _) => Ok(true),
            (Some(1), _) => Ok(false),
            (Some(128), "cat-file") if self.run(&["rev-parse", "--git-dir"])?.status.success() => Ok(false),
            _ => Err(self.complaint(&output)),
        }
    }

    fn ask(&self, arguments: &[&str]) -> Result<String, String> {
        let output = self.run(arguments)?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(self.complaint(&output))
        }
    }

    fn run(&self, arguments: &[&str]) -> Result<std::process::Output, String> {
        Command::new("git")
            .arg("-C")
            .arg(self.0)
            .args(arguments)
            .output()
            .map_err(|error| format!("cannot ask git which commit is newer: {error}"))
    }

    fn complaint(&self, output: &std::process::Output) -> String {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or("it gave no reason");
        format!("git cannot tell which commit is newer in {}: {said}", self.0.display())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A repository with the commits `old`, `new` and `newer` on each other, and `side` beside `new`.
    struct Clone {
        path: PathBuf,
        old: String,
        new: String,
        newer: String,
        side: String,
    }

    impl Clone {
        fn make(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("deployer-order-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            let commit = |message: &str| {
                git(&path, &["commit", "--quiet", "--allow-empty", "--message", message]);
                git(&path, &["rev-parse", "HEAD"])
            };
            git(&path, &["init", "--quiet"]);
            let old = commit("old");
            let side = commit("side");
            git(&path, &["reset", "--quiet", "--hard", &old]);
            let (new, newer) = (commit("new"), commit("newer"));
            git(&path, &["branch", "side", &side]);
            Self { path, old, new, newer, side }
        }
    }

    impl Drop for Clone {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.path).ok();
        }
    }

    fn git(path: &Path, arguments: &[&str]) -> String {
        let output = Command::new("git")
            .args(["-c", "user.name=test", "-c", "user.email=test@example.com", "-C"])
            .arg(path)
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    #[test]
    fn a_newer_commit_goes_and_any_other_is_refused_with_the_remedy() {
        let clone = Clone::make("order");
        let Clone { path, old, new, newer, side } = &clone;
        let unknown = "0123456789012345678901234567890123456789";
        for (what, live, commit, expected) in [
            ("the same", Some(&**new), &**new, "the same commit runs there"),
            ("one newer", Some(old), new, "1 commit older"),
            ("two newer", Some(old), newer, "2 commits older"),
            ("no annotation", None, new, "does not name its commit"),
            ("older", Some(newer), new, "is older than"),
            ("beside", Some(new), side, "have diverged"),
            ("unknown runs", Some(unknown), new, "the commit that runs, 012345678901, is unknown to the clone"),
            ("unknown to deploy", Some(new), unknown, "the commit to deploy, 012345678901, is unknown to the clone"),
            ("no commit runs", Some("main"), new, "\"main\" as its commit, which is not a commit ID"),
        ] {
            let order = Order::of(live, commit, path);
            let is_refused =
                ["older than", "diverged", "unknown", "not a commit"].iter().any(|word| expected.contains(word));
            assert_eq!(matches!(order, Order::Refused(_)), is_refused, "{what}: {order}");
            assert!(order.to_string().contains(expected), "{what}: {order}");
            assert_eq!(order.to_string().contains("--ignore-order"), is_refused, "{what}: {order}");
        }
    }

    #[test]
    fn a_shallow_clone_names_the_fetch_that_helps() {
        let clone = Clone::make("deep");
        let shallow = clone.path.join("shallow");
        let url = format!("file://{}", clone.path.display());
        git(&clone.path, &["clone", "--quiet", "--depth", "1", &url, &shallow.display().to_string()]);
        let order = Order::of(Some(&clone.old), &clone.newer, &shallow);
        assert!(matches!(&order, Order::Refused(reason) if reason.contains("git fetch --unshallow")), "{order}");
    }

    #[test]
    fn where_there_is_no_repository_git_says_so() {
        let order = Order::of(Some(&"1".repeat(40)), &"2".repeat(40), Path::new("/"));
        assert!(matches!(&order, Order::Refused(reason) if reason.contains("not a git repository")), "{order}");
    }
}
