//! `spin up` for machines without Spin: runs a Spin HTTP application for development and tests, never in production.
//!
//! What it does, it does as Spin 3.6 does; what it cannot do, it refuses when it starts. Its own additions are a time limit for
//! each request, a memory limit that is set by default, and errors that say what to do.

mod component;
mod manifest;
mod request;
mod routes;
mod server;
mod variables;

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

use crate::component::Limits;
use crate::server::Server;

/// Serves the Spin HTTP application that a manifest describes, as `spin up` does.
///
/// Ends with 0 on SIGTERM and SIGINT, and with 2 if it cannot start.
#[derive(Parser)]
#[command(version)]
struct Args {
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
}

fn main() -> ExitCode {
    match run(Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("request-info-host: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Serves until a signal ends it; an error says why it could not start.
fn run(args: Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("cannot start the threads of the server")?;
    let outcome = runtime.block_on(async {
        // Before anything that takes time: process 1 of a container ignores a signal that it has no handler for.
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            failure = tokio::spawn(serve(args)) => failure?,
        }
    });
    // Nothing is drained, as Spin drains nothing: a request in the middle of its work does not hold up the end.
    runtime.shutdown_background();
    outcome
}

async fn serve(args: Args) -> anyhow::Result<()> {
    let limits = Limits { memory: args.max_instance_memory, time: Duration::from_secs(args.request_timeout) };
    let load = move || Server::load(&args.from, limits);
    let server = tokio::task::spawn_blocking(load).await??;
    server.listen(args.listen).await
}

/// Understands host names too, and prefers 127.0.0.1 to what else a name stands for, as Spin does.
fn listen_address(text: &str) -> Result<SocketAddr, String> {
    let addresses: Vec<_> =
        text.to_socket_addrs().map_err(|error| format!("{error}; an address looks like 127.0.0.1:3000"))?.collect();
    let loopback = addresses.iter().find(|address| address.ip() == std::net::Ipv4Addr::LOCALHOST);
    loopback.or(addresses.first()).copied().ok_or_else(|| "this name has no address".to_owned())
}
