//! The server: connections, Spin's own routes, and the way from a request to its component.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Bytes};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::OwnedSemaphorePermit;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;

use crate::component::{self, Component, Limits};
use crate::log::log;
use crate::manifest::{HttpTrigger, Manifest};
use crate::request;
use crate::routes::{Route, Routes, WELL_KNOWN};
use crate::variables;
use crate::visitors::Visitors;

/// An application that is ready to be served.
pub(crate) struct Server {
    routes: Routes,
    /// By ID. Every component of a route is in it.
    components: BTreeMap<String, Component>,
}

impl Server {
    /// Reads a manifest and compiles its components.
    ///
    /// # Errors
    /// When anything in it is wrong, or is not available here.
    pub(crate) fn load(from: &Path, limits: Limits) -> anyhow::Result<Self> {
        let manifest = Manifest::load(from)?;
        for HttpTrigger { route, component, .. } in &manifest.trigger.http {
            ensure!(
                manifest.component.contains_key(component),
                "route `{route}` leads to component `{component}`, which the manifest does not have"
            );
        }
        let triggers = manifest.trigger.http.into_iter();
        let routes = Routes::new(triggers.map(|trigger| (trigger.route, trigger.component)))?;
        let values = variables::of_application(&manifest.variables, |key| std::env::var(key))?;
        let engine = component::engine(limits.instances)?;
        let mut components = BTreeMap::new();
        for (id, description) in manifest.component {
            let values = variables::of_component(&description.variables, &values)
                .with_context(|| format!("component `{id}`"))?;
            let component = Component::load(&engine, &id, description, values, limits)?;
            components.insert(id, component);
        }
        Ok(Self { routes, components })
    }

    /// Listens, prints the address, and serves without end: as Spin does, or within the limits of `visitors`.
    ///
    /// # Errors
    /// When the address is not available.
    pub(crate) async fn listen(self, address: SocketAddr, visitors: Option<Arc<Visitors>>) -> anyhow::Result<()> {
        let listener = listener(address).map_err(|error| match error.kind() {
            ErrorKind::AddrInUse => {
                anyhow!("{address} is already in use: stop what listens there, or choose another address with --listen")
            }
            _ => anyhow!("cannot listen on {address}: {error}"),
        })?;
        let local = listener.local_addr()?;
        self.announce(local)?;
        if let Some(visitors) = visitors.clone() {
            log!("serving on {local}");
            tokio::spawn(async move { visitors.sweep().await });
        }
        let server = Arc::new(self);
        loop {
            match listener.accept().await {
                Ok((stream, client)) => {
                    // Answers are written at once, so waiting for more data would only delay them.
                    _ = stream.set_nodelay(true);
                    let server = Arc::clone(&server);
                    let Some(visitors) = &visitors else {
                        tokio::spawn(server.connection(stream, client));
                        continue;
                    };
                    // Here and not in a task, because tasks begin in any order, and a new connection might be closed for an older one.
                    if let Some(connection) = visitors.admit() {
                        tokio::spawn(Arc::clone(visitors).serve(server, (stream, client), connection));
                    }
                }
                Err(error) => {
                    // Most likely there are no file descriptors left. Connections that end free some.
                    eprintln!("cannot accept a connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Prints that the host is ready, for people and for the program that started it.
    fn announce(&self, address: SocketAddr) -> std::io::Result<()> {
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "Serving http://{address}\nAvailable Routes:")?;
        for Route { based, component, .. } in self.routes.iter() {
            match based.strip_suffix("/...") {
                Some(prefix) => writeln!(stdout, "  {component}: http://{address}{prefix} (wildcard)")?,
                None => writeln!(stdout, "  {component}: http://{address}{based}")?,
            }
        }
        stdout.flush()
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, client: SocketAddr) {
        let service = service_fn(|request| {
            let server = Arc::clone(&self);
            async move { server.answer(request, client, None).await }
        });
        // A connection that ends early was ended by the client, or its request's error was already printed.
        _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
    }

    /// Answers one request; an error closes the connection without an answer.
    pub(crate) async fn answer<B>(
        &self,
        request: Request<B>,
        client: SocketAddr,
        permit: Option<OwnedSemaphorePermit>,
    ) -> anyhow::Result<Response<HyperOutgoingBody>>
    where
        B: Body<Data = Bytes, Error = hyper::Error> + Send + 'static,
    {
        let (mut parts, body) = request.into_parts();
        let path = parts.uri.path().to_owned();
        match path.strip_prefix(WELL_KNOWN) {
            Some("health") => return Ok(response(StatusCode::OK, "OK")),
            Some(_) => return Ok(response(StatusCode::NOT_FOUND, "")),
            None => {}
        }
        let Some(found) = self.routes.find(&path) else {
            return Ok(response(StatusCode::NOT_FOUND, ""));
        };
        request::set_authority(&mut parts)?;
        let id = &found.route.component;
        let method = parts.method.clone();
        let answer = match request::append_headers(&mut parts, &found, client) {
            Ok(()) => self.components[id].answer(Request::from_parts(parts, body), permit).await,
            Err(error) => Err(error),
        };
        Ok(answer.unwrap_or_else(|error| {
            eprintln!("component {id} did not answer {method} {path}: {error:#}");
            response(StatusCode::INTERNAL_SERVER_ERROR, "")
        }))
    }
}

/// Listens with room for a burst of connections. Without room, the kernel drops a connection, and its client tries again only
/// after a second.
fn listener(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    // The most that Linux allows by default (net.core.somaxconn).
    socket.listen(4096)
}

pub(crate) fn response(status: StatusCode, body: &'static str) -> Response<HyperOutgoingBody> {
    let mut response =
        Response::new(Full::new(Bytes::from_static(body.as_bytes())).map_err(|never| match never {}).boxed_unsync());
    *response.status_mut() = status;
    response
}
