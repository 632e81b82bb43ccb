//! `deployer`: a rolling update of a commit on Kubernetes that says exactly what happened.

#![forbid(unsafe_code)]

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::ErrorKind;
use tokio::signal::unix::{SignalKind, signal};

use crate::apply::Manner;
use crate::cli::{Build, Cli, Command, Deploy, Format, Where};
use crate::cluster::Cluster;
use crate::outcome::{Ending, Reason};
use crate::place::Place;
use crate::report::Run;

mod ancestry;
mod apply;
mod cause;
mod checks;
mod cli;
mod cluster;
mod commit;
mod contest;
mod deploy;
mod diagnosis;
mod follow;
mod image;
mod kubeconfig;
mod managed_fields;
mod outcome;
mod output;
mod pace;
mod place;
mod pod;
mod proof;
mod report;
mod retry;
mod revision;
mod rollback;
mod rollout;
mod status;
mod target;
mod template;
mod watch;
mod yaml;

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => ExitCode::from(run(&cli.command)),
        Err(error) => usage(&error),
    }
}

/// Prints clap's message, and with `-o json` also the JSON document.
fn usage(error: &clap::Error) -> ExitCode {
    drop(error.print());
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    let cause = text.lines().next().unwrap_or_default();
    let ending = Ending::new(Reason::InvalidInput, cause.strip_prefix("error: ").unwrap_or(cause));
    let arguments: Vec<String> = std::env::args().collect();
    let wants_json =
        arguments.windows(2).any(|pair| matches!(pair[0].as_str(), "-o" | "--output") && pair[1] == "json")
            || arguments.iter().any(|argument| matches!(argument.as_str(), "-ojson" | "-o=json" | "--output=json"));
    if wants_json {
        print_document(&Run::start(), &ending);
    }
    ExitCode::from(ending.exit_code())
}

fn run(command: &Command) -> u8 {
    match command {
        Command::Render(build) => render(build),
        Command::Deploy(asked) => conclude(&asked.place, async |run| deploy(asked, run).await),
        Command::Status(named) => conclude(&named.place, async |run| {
            let cluster = connect(&named.place, named.place.namespace.as_deref(), &named.name, run).await?;
            status::status(&cluster, &named.name, run).await
        }),
        Command::Rollback { named, timeout } => conclude(&named.place, async |run| {
            let cluster = connect(&named.place, named.place.namespace.as_deref(), &named.name, run).await?;
            rollback::roll_back(&cluster, &named.name, *timeout, run).await
        }),
    }
}

/// Does the work until it ends or a signal ends it, and turns either into the verdict and the exit code.
fn conclude(place: &Where, work: impl AsyncFnOnce(&mut Run) -> Result<Ending, Ending>) -> u8 {
    let mut run = Run::start();
    let ending = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let ending = runtime.block_on(until_signalled(work, &mut run));
            runtime.shutdown_background(); // does not wait for a DNS lookup that still runs
            ending
        }
        Err(error) => Ending::new(Reason::InvalidInput, format!("the async runtime cannot start: {error}")),
    };
    deploy::look_further(&ending, &mut run);
    finish(&run, &ending, place.output)
}

async fn until_signalled(work: impl AsyncFnOnce(&mut Run) -> Result<Ending, Ending>, run: &mut Run) -> Ending {
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return Ending::new(Reason::InvalidInput, "cannot listen for signals");
    };
    let (reason, name) = tokio::select! {
        ending = work(run) => return ending.unwrap_or_else(|ending| ending),
        _ = interrupt.recv() => (Reason::Interrupted, "SIGINT"),
        _ = terminate.recv() => (Reason::Terminated, "SIGTERM"),
    };
    let what = if run.changed { "the rollout continues" } else { "nothing was changed" };
    Ending::new(reason, format!("{name}; {what}"))
}

async fn deploy(asked: &Deploy, run: &mut Run) -> Result<Ending, Ending> {
    let Build { image, commit, template } = &asked.build;
    let manner = Manner {
        timeout: asked.timeout,
        rollback: asked.rollback,
        dry_run: asked.dry_run,
        ignore_order: asked.ignore_order,
    };
    let request = deploy::Request { image: image.clone(), commit: commit.clone(), template: template.clone(), manner };
    run.commit = Some(commit.as_str().to_owned());
    run.image = Some(image.as_str().to_owned());
    let place = &asked.place;
    let documents = deploy::read(&request, place.namespace.as_deref()).map_err(|error| Ending::invalid(&error))?;
    let namespace = place.namespace.as_deref().or(documents.namespace());
    let cluster = connect(place, namespace, documents.deployment.name(), run).await?;
    Box::pin(deploy::deploy(&cluster, &request, documents, run)).await
}

async fn connect(place: &Where, namespace: Option<&str>, name: &str, run: &mut Run) -> Result<Cluster, Ending> {
    run.deployment = Some(name.to_owned());
    let known = |namespace: &str| Place { context: place.context.clone(), namespace: namespace.to_owned() };
    run.place = namespace.map(known);
    let cluster = Cluster::connect(place.context.as_deref(), namespace).await?;
    run.place = Some(cluster.place.clone());
    Ok(cluster)
}

/// Prints the documents. It sends no request, so the output does not depend on a cluster.
fn render(build: &Build) -> u8 {
    let documents = deploy::render(&build.image, &build.commit, &build.template);
    match documents.and_then(|documents| documents.yaml()) {
        Ok(yaml) => {
            drop(std::io::stdout().write_all(yaml.as_bytes())); // fails if the reader has closed the pipe, which is not an error
            0
        }
        Err(error) => finish(&Run::start(), &Ending::invalid(&error), Format::Text),
    }
}

/// Writes the verdict and the document.
fn finish(run: &Run, ending: &Ending, format: Format) -> u8 {
    run.output.stop();
    for line in run.verdict(ending) {
        run.output.line(&line);
    }
    if format == Format::Json {
        print_document(run, ending);
    }
    ending.exit_code()
}

fn print_document(run: &Run, ending: &Ending) {
    if let Ok(document) = serde_json::to_string_pretty(&run.document(ending)) {
        drop(writeln!(std::io::stdout(), "{document}"));
    }
}
