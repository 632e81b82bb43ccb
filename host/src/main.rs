//! Runs a Spin HTTP application: `spin up` for machines without Spin, and the server of the standalone image.
//!
//! It behaves as Spin 3.6 does, and refuses at the start what it does not support. It adds a time limit for each request, a
//! default memory limit, and errors that say what to do. What only a public server needs is off unless a flag asks for it, and
//! is in modules of its own: `visitors`, `connections`, `precompiled`, `healthcheck`.

mod component;
mod connections;
mod healthcheck;
mod log;
mod manifest;
mod precompiled;
mod request;
mod routes;
mod server;
mod variables;
mod visitors;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::component::Limits;
use crate::log::log;
use crate::manifest::Manifest;
use crate::server::Server;
use crate::visitors::Visitors;

/// Serves the Spin HTTP application that a manifest describes, as `spin up` does.
///
/// Ends with 0 on SIGTERM and SIGINT, and with 2 if it cannot start.
#[derive(Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    /// The manifest, or the directory that holds a `spin.toml`
    #[arg(short, long, value_name = "FILE|DIRECTORY", default_value = "spin.toml")]
    from: PathBuf,

    /// The address to listen on; port 0 is any free one
    #[arg(long, value_name = "ADDRESS", env = "SPIN_HTTP_LISTEN_ADDR", default_value = "127.0.0.1:3000", value_parser = listen_address)]
    listen: SocketAddr,

    /// How much memory one instance may have
    #[arg(long, value_name = "BYTES", env = "SPIN_MAX_INSTANCE_MEMORY", default_value_t = 32 << 20)]
    max_instance_memory: usize,

    /// How long one request may take; then it is answered with 500, or its connection is cut if the answer had begun
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    request_timeout: u64,

    /// On SIGTERM, keep answering, ask each client to leave, and end when none is left or after this time, for example 30s
    ///
    /// During the drain, /healthz is answered with 503 and everything else as before. Each connection is closed after its
    /// next answer. Idle connections stay open, because a request may be on its way. A second signal ends the host at once.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    drain: Option<Duration>,

    /// Allow at most this many connections, and close those that take too much memory or time
    ///
    /// At the limit, the connection for which the host has waited longest is closed for the new one. An idle connection is
    /// closed only if the host waits for no other. A head, the first 64 KiB of a body and the reading of an answer may
    /// each take 10 s, and the time between two requests 75 s. At most 8 instances run at a time; a request that waits 5 s
    /// for one is answered with 503. Heads, bodies and answers take at most 40 MiB together. With 1200 connections and
    /// 4 MiB for each instance, everything fits in 128 MiB.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    max_connections: Option<u32>,

    /// Use the code that `compile` wrote beside each component, if it belongs to this component and this host
    #[arg(long)]
    precompiled: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Ask the server for /healthz; exits with 0 if it answers with 200, else 1
    Healthcheck {
        /// The address on which the server listens
        #[arg(long, value_name = "ADDRESS", env = "SPIN_HTTP_LISTEN_ADDR", default_value = "127.0.0.1:3000", value_parser = listen_address)]
        listen: SocketAddr,
    },
    /// Compile the components for a processor, each into a .cwasm file beside its .wasm file
    Compile {
        /// The manifest, or the directory that holds a `spin.toml`
        #[arg(short, long, value_name = "FILE|DIRECTORY", default_value = "spin.toml")]
        from: PathBuf,

        /// The target, as rustc names it, for example aarch64-unknown-linux-gnu; every processor of that kind can run the code
        #[arg(long, value_name = "TARGET", default_value_t = format!("{}-unknown-linux-gnu", std::env::consts::ARCH))]
        target: String,
    },
}

fn main() -> ExitCode {
    let args = Args::parse();
    let (outcome, code) = match args.command {
        None => (run(args), 2),
        Some(Command::Healthcheck { listen }) => (healthcheck::check(listen), 1),
        Some(Command::Compile { from, target }) => (compile(&from, &target), 2),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("request-info-host: {error:#}");
            ExitCode::from(code)
        }
    }
}

fn compile(from: &Path, target: &str) -> anyhow::Result<()> {
    let engine = component::compiler(target).with_context(|| format!("cannot compile for {target}"))?;
    for component in Manifest::load(from)?.component.values() {
        precompiled::write(&engine, &component.source)?;
    }
    Ok(())
}

/// Serves until a signal ends it. An error says why it could not start.
fn run(args: Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the threads of the server")?;
    let outcome = runtime.block_on(async {
        // First, because process 1 of a container ignores a signal that it has no handler for.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let visitors = (args.drain.is_some() || args.max_connections.is_some())
            .then(|| Arc::new(Visitors::new(args.max_connections.map(|limit| limit as usize))));
        let drain = args.drain;
        tokio::select! {
            () = first(&mut terminate, &mut interrupt) => {}
            failure = tokio::spawn(serve(args, visitors.clone())) => return failure?,
        }
        let (Some(visitors), Some(limit)) = (visitors, drain) else { return Ok(()) };
        tokio::select! {
            () = visitors.drain(limit) => {}
            () = first(&mut terminate, &mut interrupt) => log!("stopped at once after a second signal"),
        }
        Ok(())
    });
    // As in Spin, a request that is under way does not delay the end.
    runtime.shutdown_background();
    outcome
}

async fn first(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

async fn serve(args: Args, visitors: Option<Arc<Visitors>>) -> anyhow::Result<()> {
    let limits = Limits {
        memory: args.max_instance_memory,
        time: Duration::from_secs(args.request_timeout),
        instances: args.max_connections.map_or(component::MAX_INSTANCES, |_| visitors::INSTANCES),
        precompiled: args.precompiled,
    };
    let load = move || Server::load(&args.from, limits);
    let server = tokio::task::spawn_blocking(load).await??;
    server.listen(args.listen, visitors).await
}

/// A time with its unit, such as `30s` or `1m`.
fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().ok().and_then(|duration| duration.try_into().ok());
    parsed.ok_or_else(|| "write a duration such as 30s or 1m".to_owned())
}

/// Accepts host names, too, and prefers 127.0.0.1 to a name's other addresses, as Spin does.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let addresses: Vec<_> =
        text.to_socket_addrs().map_err(|error| format!("{error}; write an address such as 127.0.0.1:3000"))?.collect();
    let loopback = addresses.iter().find(|address| address.ip() == std::net::Ipv4Addr::LOCALHOST);
    loopback.or(addresses.first()).copied().ok_or_else(|| "this name has no address".to_owned())
}
