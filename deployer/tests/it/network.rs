//! Where the API server's connections to pods and kubelets end: it is told to reach them through this proxy.
//! So pods can have any address, and no interface of the machine need be touched.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::UnixListener;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// The port that nodes say their kubelets listen on.
pub(crate) const KUBELET_PORT: u16 = 10250;

/// What the container of a pod would answer.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    /// For `GET /version`; None if the route does not exist.
    pub(crate) commit: Option<String>,
    /// For `GET /healthz`: status and text.
    pub(crate) health: (u16, String),
    /// For the kubelet, under the pod's name.
    pub(crate) log: String,
}

#[derive(Default)]
struct State {
    by_address: Mutex<HashMap<String, Container>>,
    by_pod: Mutex<HashMap<String, Container>>,
}

/// Both ends of a connection in which the server shows the control plane's certificate.
#[derive(Clone)]
pub(crate) struct Tls {
    pub(crate) acceptor: TlsAcceptor,
    pub(crate) connector: TlsConnector,
}

impl Tls {
    pub(crate) fn of(identity: &rcgen::CertifiedKey<rcgen::KeyPair>) -> Self {
        let certificate = CertificateDer::from(identity.cert.der().to_vec());
        let key = PrivateKeyDer::try_from(identity.signing_key.serialize_der()).expect("it is PKCS #8");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate.clone()).expect("it is a certificate");
        let client = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has them")
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .expect("the key is the certificate's");
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
        let listener = UnixListener::bind(socket).expect("the directory is ours");
        let state = Arc::<State>::default();
        let shared = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, tls) = (Arc::clone(&shared), tls.clone());
                // A client that disconnects early is not an error of the server.
                tokio::spawn(async move { connect(BufReader::new(stream), &state, &tls).await.ok() });
            }
        });
        Self { next: AtomicU32::new(0), state }
    }

    /// Gives the pod of this name in this namespace an address under which `container` answers.
    pub(crate) fn attach(&self, namespace: &str, pod: &str, container: Container) -> Ipv4Addr {
        let address =
            Ipv4Addr::from_bits(Ipv4Addr::new(10, 1, 0, 0).to_bits() + self.next.fetch_add(1, Ordering::Relaxed));
        self.state.by_pod.lock().expect("no panic holds it").insert(format!("{namespace}/{pod}"), container.clone());
        self.state.by_address.lock().expect("no panic holds it").insert(address.to_string(), container);
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
        let container = state.by_pod.lock().expect("no panic holds it").get(&pod).cloned();
        return match container {
            Some(container) => answer(&mut stream, 200, "text/plain", &container.log).await,
            None => answer(&mut stream, 404, "text/plain", "no such container\n").await,
        };
    }
    let line = head(&mut stream).await?;
    let container = state.by_address.lock().expect("no panic holds it").get(address).cloned();
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

/// The first line of a request; the others are read and forgotten.
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
