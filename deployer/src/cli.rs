//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use k8s_openapi::jiff::SignedDuration;

use crate::commit::Commit;
use crate::image::Image;

/// The end of every command's help.
macro_rules! help {
    ($example:literal) => {
        concat!(
            "Example:\n  ",
            $example,
            "\n\nExit codes:\n",
            "  0    done\n",
            "  1    the rollout failed; the verdict says what serves now\n",
            "  2    wrong usage, template, image or commit; nothing was sent\n",
            "  3    the API server cannot be reached, refuses the login or a document, or has no such Deployment; nothing was changed\n",
            "  4    the commit is not newer than the one that runs, or another commit superseded it\n",
            "  5    the rollout and its rollback failed, or pods answer with another commit or run another digest: look at once\n",
            "  70   undecided: the rollout did not end in time, or access was lost after the apply; the rollout continues\n",
            "  130, 143   ended by SIGINT or SIGTERM; the rollout continues"
        )
    };
}

/// A rolling update of a commit on Kubernetes that says exactly what happened.
#[derive(Debug, Parser)]
#[command(version, after_help = help!("deployer deploy --image ghcr.io/me/request-info:3f9c2ab17d04 --commit $(git rev-parse HEAD) --template kubernetes/deployment.yaml.tmp"))]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Roll out a commit, and end when it has replaced the previous one
    #[command(after_help = help!("deployer deploy -n web --image ghcr.io/me/request-info:3f9c2ab17d04 --commit $(git rev-parse HEAD) --template kubernetes/deployment.yaml.tmp --rollback"))]
    Deploy(Deploy),
    /// Print the documents that would be applied, without contacting a cluster
    #[command(after_help = help!("deployer render --image ghcr.io/me/request-info:3f9c2ab17d04 --commit $(git rev-parse HEAD) --template kubernetes/deployment.yaml.tmp"))]
    Render(Build),
    /// Say which commit serves now; exits with 0 if its rollout is done, 1 if it failed, 70 if it is under way
    #[command(after_help = help!("deployer status -n web request-info"))]
    Status(Named),
    /// Roll back to the previous revision, and end when it serves
    #[command(after_help = help!("deployer rollback -n web request-info"))]
    Rollback {
        #[command(flatten)]
        named: Named,
        /// How long it may take
        #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
        timeout: Duration,
    },
}

/// What was built, and the template that it goes into.
#[derive(Debug, Args)]
pub(crate) struct Build {
    /// The image; its tag must be a prefix of the commit, and a digest pins its content
    #[arg(long, value_name = "REPOSITORY:TAG[@DIGEST]")]
    pub(crate) image: Image,
    /// The commit that the image was built from, all 40 digits
    #[arg(long, value_name = "SHA")]
    pub(crate) commit: Commit,
    /// The Kubernetes documents, with <IMAGE> where the image belongs
    #[arg(long, value_name = "FILE")]
    pub(crate) template: PathBuf,
}

/// Which cluster, and how to answer.
#[derive(Debug, Args)]
pub(crate) struct Where {
    /// The namespace [default: the template's, else the context's]
    #[arg(short, long)]
    pub(crate) namespace: Option<String>,
    /// The context of the kubeconfig [default: the current one, else the cluster that this runs in]
    #[arg(long)]
    pub(crate) context: Option<String>,
    /// What to print on stdout: nothing, or one JSON document on every exit
    #[arg(short, long, value_enum, default_value_t)]
    pub(crate) output: Format,
}

/// What is printed on stdout at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Nothing; everything is on stderr.
    #[default]
    Text,
    /// One JSON document on every exit.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct Named {
    /// The name of the Deployment
    #[arg(default_value = "request-info")]
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) place: Where,
}

#[derive(Debug, Args)]
pub(crate) struct Deploy {
    #[command(flatten)]
    pub(crate) build: Build,
    #[command(flatten)]
    pub(crate) place: Where,
    /// How long the rollout may take; must be longer than the template's progressDeadlineSeconds
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    pub(crate) timeout: Duration,
    /// Roll back to the previous revision if the rollout fails
    #[arg(long)]
    pub(crate) rollback: bool,
    /// Change nothing: only check the documents on the API server and the order of the commits in git
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Deploy the commit even if it is not known to be newer than the one that runs
    #[arg(long)]
    pub(crate) ignore_order: bool,
}

/// For example `90s`, `5m` or `1h 30m`.
fn duration(text: &str) -> Result<Duration, String> {
    let duration: SignedDuration = text.parse().map_err(|_| "write a duration such as 90s, 5m or 1h30m".to_owned())?;
    match Duration::try_from(duration) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("it must be greater than zero".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_help_of_every_command_is_pinned() {
        let mut command = Cli::command();
        command.build();
        let mut text = command.render_help().to_string();
        for subcommand in command.get_subcommands_mut().filter(|subcommand| subcommand.get_name() != "help") {
            let help = subcommand.render_help();
            text = format!("{text}\n--- {}\n{help}", subcommand.get_name());
        }
        insta::assert_snapshot!("help", text);
    }
}
