//! The pods and kubelets that the API server connects to. It is configured to reach them through this proxy, so pods can
//! have any address, and the machine's interfaces stay as they are.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::UnixListener;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The port that nodes say their kubelets listen on.
pub(crate) const KUBELET_PORT: u16 = 10250;

/// The answers of a pod's container.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    /// The commit in the answer to `GET /version`; None if the route does not exist.
    pub(crate) commit: Option<String>,
    /// Status and text of the answer to `GET /healthz`.
    pub(crate) health: (u16, String),
    /// The log that the kubelet returns.
    pub(crate) log: String,
}

#[derive(Default)]
struct State {
    by_address: Mutex<HashMap<String, Container>>,
    by_pod: Mutex<HashMap<String, Container>>,
}

/// The TLS settings of both ends of a connection. The server has the control plane's certificate.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) connector: TlsConnector,
}

impl Tls {
    /// `directory` holds the API server's certificate and key.
    pub(crate) fn of(directory: &Path) -> Self {
        let certificates = CertificateDer::pem_file_iter(directory.join("apiserver.crt")).expect("the file exists");
        let certificates = certificates.collect::<Result<Vec<_>, _>>().expect("the certificates are PEM");
        let key = PrivateKeyDer::from_pem_file(directory.join("apiserver.key")).expect("the key is PEM");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add_parsable_certificates(certificates.iter().cloned());
        let client = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has the default TLS versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has the default TLS versions")
            .with_no_client_auth()
            .with_single_cert(certificates, key)
            .expect("the key belongs to the certificate");
        Self { acceptor: TlsAcceptor::from(Arc::new(server)), connector: TlsConnector::from(Arc::new(client)) }
    }
}

pub(crate) struct Network {
    next: AtomicU32,
    state: Arc<State>,
}

impl Network {
    /// Listens at `socket` from now on.
    pub(crate) fn start(tls: &Tls, socket: &Path) -> Self {
        let tls = tls.acceptor.clone();
        let listener = UnixListener::bind(socket).expect("the socket can be bound");
        let state = Arc::<State>::default();
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, tls) = (Arc::clone(&shared), tls.clone());
                // A client may disconnect early.
                tokio::spawn(async move { connect(BufReader::new(stream), &state, &tls).await.ok() });
            }
        });
        Self { next: AtomicU32::new(0), state }
    }

    /// Gives the pod of this name in this namespace an address under which `container` answers.
    pub(crate) fn attach(&self, namespace: &str, pod: &str, container: Container) -> Ipv4Addr {
        let address =
            Ipv4Addr::from_bits(Ipv4Addr::new(10, 1, 0, 0).to_bits() + self.next.fetch_add(1, Ordering::Relaxed));
        self.state
            .by_pod
            .lock()
            .expect("the lock is not poisoned")
            .insert(format!("{namespace}/{pod}"), container.clone());
        self.state.by_address.lock().expect("the lock is not poisoned").insert(address.to_string(), container);
        address
    }
}

/// One `CONNECT`, and one request in it.
async fn connect<S>(mut stream: S, state: &State, tls: &TlsAcceptor) -> std::io::Result<()>
where
    S: AsyncBufReadExt + AsyncWrite + Unpin,
{
    let line = head(&mut stream).await?;
    let target = line.split(' ').nth(1).unwrap_or_default();
    stream.write_all(b"HTTP/1.1 200 Connected\r\n\r\n").await?;
    let (address, port) = target.rsplit_once(':').unwrap_or((target, ""));
    if port == KUBELET_PORT.to_string() {
        let mut stream = BufReader::new(tls.accept(stream).await?);
        let line = head(&mut stream).await?;
        // /containerLogs/NAMESPACE/POD/CONTAINER?tailLines=…
        let parts: Vec<&str> = line.split([' ', '/']).collect();
        let pod = parts.get(3..5).map(|parts| parts.join("/")).unwrap_or_default();
        let container = state.by_pod.lock().expect("the lock is not poisoned").get(&pod).cloned();
        return match container {
            Some(container) => answer(&mut stream, 200, "text/plain", &container.log).await,
            None => answer(&mut stream, 404, "text/plain", "no such container\n").await,
        };
    }
    let line = head(&mut stream).await?;
    let container = state.by_address.lock().expect("the lock is not poisoned").get(address).cloned();
    match (container, line.split(' ').nth(1)) {
        (Some(Container { commit: Some(commit), .. }), Some("/version")) => {
            let body = serde_json::json!({"version": "0.1.0", "commit": commit}).to_string();
            answer(&mut stream, 200, "application/json", &body).await
        }
        (Some(Container { health: (status, text), .. }), Some("/healthz")) => {
            answer(&mut stream, status, "text/plain", &text).await
        }
        _ => answer(&mut stream, 404, "text/plain", "not found\n").await,
    }
}

/// Reads a request and returns its first line.
async fn head(stream: &mut (impl AsyncBufReadExt + Unpin)) -> std::io::Result<String> {
    let mut first = String::new();
    stream.read_line(&mut first).await?;
    let mut line = first.clone();
    while !line.trim_end().is_empty() {
        line.clear();
        stream.read_line(&mut line).await?;
    }
    Ok(first.trim_end().to_owned())
}

async fn answer<S>(stream: &mut S, status: u16, kind: &str, body: &str) -> std::io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} -\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    stream.shutdown().await
}
