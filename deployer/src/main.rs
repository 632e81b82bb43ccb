//! `deployer`: a rolling update of a commit on Kubernetes that says exactly what happened.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand};
use k8s_openapi::jiff::SignedDuration;
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::Cluster;
use crate::outcome::{Ending, Outcome};
use crate::output::{Format, Output};
use crate::template::{Commit, Image};

mod cluster;
mod container;
mod deploy;
mod diagnosis;
mod fields;
mod order;
mod outcome;
mod output;
mod permissions;
mod pod;
mod proof;
mod revision;
mod rollback;
mod rollout;
mod status;
mod template;
mod verdict;
mod watch;

/// What every command's help ends with.
macro_rules! help {
    ($example:literal) => {
        concat!(
            "Example:\n  ",
            $example,
            "\n\nExit codes:\n",
            "  0    done\n",
            "  1    the rollout failed; the verdict says what serves now\n",
            "  2    usage, template, image or commit: nothing was sent\n",
            "  3    API server unreachable, not authorised, or a document refused\n",
            "  4    not newer than what runs, or superseded by another commit\n",
            "  5    the rollout failed and so did going back, or pods prove another commit: look at once\n",
            "  70   not ended in time; the rollout goes on by itself\n",
            "  130, 143   SIGINT, SIGTERM; the rollout goes on by itself"
        )
    };
}

/// A rolling update of a commit on Kubernetes that says exactly what happened.
#[derive(Debug, Parser)]
#[command(version, after_help = help!("deployer deploy --image ghcr.io/me/request-info:3f9c2ab17d04 --commit $(git rev-parse HEAD) --template kubernetes/deployment.yaml.tmp"))]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Roll a commit out, and end when it has replaced what ran before
    #[command(after_help = help!("deployer deploy -n web --image ghcr.io/me/request-info:3f9c2ab17d04 --commit $(git rev-parse HEAD) --template kubernetes/deployment.yaml.tmp --rollback"))]
    Deploy(Deploy),
    /// Print the documents that would be applied; asks no cluster
    #[command(after_help = help!("deployer render --image ghcr.io/me/request-info:3f9c2ab17d04 --commit $(git rev-parse HEAD) --template kubernetes/deployment.yaml.tmp"))]
    Render(Build),
    /// Say what serves now, by commit; 0 if its rollout is done, 1 if it failed, 70 if it is going on
    #[command(after_help = help!("deployer status -n web request-info"))]
    Status(Named),
    /// Put the revision before back, and end when it serves
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
struct Build {
    /// The image; its tag is the beginning of the commit
    #[arg(long, value_name = "REPOSITORY:TAG")]
    image: Image,
    /// The commit that the image was built from, all 40 digits
    #[arg(long, value_name = "SHA")]
    commit: Commit,
    /// The Kubernetes documents, with <IMAGE> where the image belongs
    #[arg(long, value_name = "FILE")]
    template: PathBuf,
}

/// Which cluster, and how to answer.
#[derive(Debug, Args)]
struct Place {
    /// The namespace [default: the template's, else the context's]
    #[arg(short, long)]
    namespace: Option<String>,
    /// The context of the kubeconfig [default: the current one, else the cluster that this runs in]
    #[arg(long)]
    context: Option<String>,
    /// What goes to stdout: nothing, or one JSON document whatever the outcome
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

#[derive(Debug, Args)]
struct Named {
    /// The Deployment
    #[arg(default_value = "request-info")]
    name: String,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, Args)]
struct Deploy {
    #[command(flatten)]
    build: Build,
    #[command(flatten)]
    place: Place,
    /// How long the rollout may take; longer than the template's progressDeadlineSeconds
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = duration)]
    timeout: Duration,
    /// Put the revision before back if the rollout fails
    #[arg(long)]
    rollback: bool,
    /// Stop before anything is changed: the server checks the documents, git the order of commits
    #[arg(long)]
    dry_run: bool,
    /// Deploy a commit that is not newer than the one that runs, or not known to be
    #[arg(long)]
    ignore_order: bool,
}

/// For example `90s`, `5m` or `1h 30m`.
fn duration(text: &str) -> Result<Duration, String> {
    let duration: SignedDuration = text.parse().map_err(|_| "write it as in 90s, 5m or 1h30m".to_owned())?;
    match Duration::try_from(duration) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err("it must be longer than nothing".to_owned()),
    }
}

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => ExitCode::from(run(&cli.command)),
        Err(error) => usage(&error),
    }
}

/// clap has the words; where a program listens, it gets its document, too.
fn usage(error: &clap::Error) -> ExitCode {
    drop(error.print());
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return ExitCode::SUCCESS;
    }
    let arguments: Vec<String> = std::env::args().collect();
    let wants_json =
        arguments.windows(2).any(|pair| matches!(pair[0].as_str(), "-o" | "--output") && pair[1] == "json")
            || arguments.iter().any(|argument| matches!(argument.as_str(), "-ojson" | "-o=json" | "--output=json"));
    if wants_json {
        let text = error.render().to_string();
        let cause = text.lines().next().unwrap_or_default();
        output::print_usage_error(cause.strip_prefix("error: ").unwrap_or(cause));
    }
    ExitCode::from(Outcome::Invalid.exit_code())
}

fn run(command: &Command) -> u8 {
    match command {
        Command::Render(build) => render(build),
        Command::Deploy(asked) => conclude(&asked.place, async |output| deploy(asked, output).await),
        Command::Status(named) => conclude(&named.place, async |output| {
            let cluster = connect(&named.place, named.place.namespace.as_deref(), &named.name, output).await?;
            status::status(&cluster, &named.name, output).await
        }),
        Command::Rollback { named, timeout } => conclude(&named.place, async |output| {
            let cluster = connect(&named.place, named.place.namespace.as_deref(), &named.name, output).await?;
            rollback::roll_back(&cluster, &named.name, *timeout, output).await
        }),
    }
}

/// Does the work until it ends or a signal ends it, and turns either into the verdict and the exit code.
fn conclude(place: &Place, work: impl AsyncFnOnce(&Output) -> Result<Ending, Ending>) -> u8 {
    let output = Output::new(place.output);
    let ending = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let ending = runtime.block_on(until_signalled(work(&output), &output));
            runtime.shutdown_background(); // a name that is still being looked up holds nobody back
            ending
        }
        Err(error) => Ending::new(Outcome::Invalid, format!("cannot begin: {error}")),
    };
    output.finish(&ending)
}

async fn until_signalled(work: impl Future<Output = Result<Ending, Ending>>, output: &Output) -> Ending {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return Ending::new(Outcome::Invalid, "cannot listen for signals");
    };
    tokio::select! {
        ending = work => ending.unwrap_or_else(|ending| ending),
        _ = interrupt.recv() => interrupted(Outcome::Interrupted, "SIGINT", output),
        _ = terminate.recv() => interrupted(Outcome::Terminated, "SIGTERM", output),
    }
}

async fn deploy(asked: &Deploy, output: &Output) -> Result<Ending, Ending> {
    let request = deploy::Request {
        image: asked.build.image.clone(),
        commit: asked.build.commit.clone(),
        template: asked.build.template.clone(),
        timeout: asked.timeout,
        rollback: asked.rollback,
        dry_run: asked.dry_run,
        ignore_order: asked.ignore_order,
    };
    let place = &asked.place;
    output.record(|report| {
        report.commit = Some(request.commit.as_str().to_owned());
        report.image = Some(request.image.as_str().to_owned());
        report.namespace.clone_from(&place.namespace);
    });
    let documents = deploy::read(&request, place.namespace.as_deref()).map_err(|error| Ending::invalid(&error))?;
    let namespace = place.namespace.as_deref().or(documents.namespace());
    let cluster = connect(place, namespace, documents.deployment.name(), output).await?;
    Box::pin(deploy::deploy(&cluster, &request, documents, output)).await
}

async fn connect(place: &Place, namespace: Option<&str>, name: &str, output: &Output) -> Result<Cluster, Ending> {
    output.record(|report| {
        report.deployment = Some(name.to_owned());
        report.namespace = namespace.map(str::to_owned);
    });
    let cluster = Cluster::connect(place.context.as_deref(), namespace).await?;
    output.record(|report| report.namespace = Some(cluster.namespace().to_owned()));
    Ok(cluster)
}

fn interrupted(outcome: Outcome, signal: &str, output: &Output) -> Ending {
    let (changed, namespace, name) =
        output.noted(|report| (report.changed, report.namespace.clone(), report.deployment.clone()));
    if !changed {
        return Ending::new(outcome, format!("{signal}; nothing was changed"));
    }
    if let (Some(namespace), Some(name)) = (namespace, name) {
        output.record(|report| {
            report.commands.push(("look", format!("deployer status -n {namespace} {name}")));
            report.commands.push(("look", format!("kubectl -n {namespace} rollout status deployment/{name}")));
        });
    }
    Ending::new(outcome, format!("{signal}; the rollout goes on by itself"))
}

/// Prints the documents. Local, so that its answer is the same with and without a cluster.
fn render(build: &Build) -> u8 {
    let documents = build.image.check_tag(&build.commit).and_then(|()| {
        let cause = deploy::change_cause(&build.commit);
        template::fill_in(&build.template, &build.image, &build.commit, &cause)?.yaml()
    });
    match documents {
        Ok(yaml) => {
            drop(std::io::stdout().write_all(yaml.as_bytes())); // whoever reads no further has what they wanted
            Outcome::Done.exit_code()
        }
        Err(error) => Output::new(Format::Text).finish(&Ending::invalid(&error)),
    }
}
