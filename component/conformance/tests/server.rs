//! The servers under test: one that runs already (`BASE_URL`), or ones that a command starts (`SERVER`), one for each configuration.

use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::Duration;

use conformance::{Connection, Request, Response};

/// Runs the command, and ends it when our end of its standard input is closed. The operating system closes it however we end.
const LIFELINE: &str = r#"eval "exec $0" 2>&1 & exec >&- 2>&-; read -r _; kill $!"#;

/// Values of the application's variables.
pub(crate) type Variables = &'static [(&'static str, &'static str)];

/// The source of the servers.
pub(crate) struct Bed {
    base_url: Option<String>,
    command: Option<String>,
    servers: Mutex<Vec<&'static Server>>,
}

impl Bed {
    pub(crate) fn from_environment() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let base_url = variable("BASE_URL");
        let command = variable("SERVER");
        if base_url.is_none() && command.is_none() {
            eprintln!("conformance: set BASE_URL or SERVER; `make conformance` starts the project's own host");
            std::process::exit(2);
        }
        Self { base_url, command, servers: Mutex::default() }
    }

    /// Whether servers can be started with settings of their own.
    pub(crate) fn configures(&self) -> bool {
        self.command.is_some()
    }

    /// The server with default settings.
    pub(crate) fn standard(&self) -> &'static Server {
        match &self.base_url {
            None => self.server("127.0.0.1:0", &[]),
            Some(url) => {
                let host = url.trim_end_matches('/').strip_prefix("http://");
                let host = host.unwrap_or_else(|| panic!("BASE_URL={url}: only http://HOST:PORT can be tested"));
                let with_port = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
                let addresses = with_port.to_socket_addrs().map(|mut addresses| addresses.next());
                let Ok(Some(address)) = addresses else { panic!("BASE_URL={url}: {host} has no address") };
                Box::leak(Box::new(Server {
                    host: host.into(),
                    start: None,
                    running: Running { address, child: None }.into(),
                }))
            }
        }
    }

    /// A server that is started when it is first needed. It lives as long as the process, so it is leaked rather than counted.
    pub(crate) fn server(&self, listen: &'static str, variables: Variables) -> &'static Server {
        let command = self.command.clone().expect("this is called only if there is a command");
        let start = Some(Start { command, listen, variables, log: Arc::default() });
        let server = &*Box::leak(Box::new(Server { host: "localhost:3000".into(), start, running: OnceLock::new() }));
        self.servers.lock().expect("the lock is not poisoned").push(server);
        server
    }

    /// The output of the servers, which helps to find the reason of a failure.
    pub(crate) fn print_logs(&self) {
        for start in
            self.servers.lock().expect("the lock is not poisoned").iter().filter_map(|server| server.start.as_ref())
        {
            let log = start.log.lock().expect("the lock is not poisoned");
            if !log.is_empty() {
                eprintln!("--- {} with {:?} wrote:\n{log}", start.command, start.variables);
            }
        }
    }
}

pub(crate) struct Server {
    /// The value of the Host header.
    pub(crate) host: String,
    start: Option<Start>,
    running: OnceLock<Running>,
}

struct Start {
    command: String,
    listen: &'static str,
    variables: Variables,
    log: Arc<Mutex<String>>,
}

struct Running {
    address: SocketAddr,
    #[expect(dead_code, reason = "holds the standard input whose end is the server's")]
    child: Option<Child>,
}

impl Server {
    pub(crate) fn connect(&self) -> Connection {
        self.connect_from(None)
    }

    pub(crate) fn connect_from(&self, from: Option<IpAddr>) -> Connection {
        let running = self
            .running
            .get_or_init(|| self.start.as_ref().expect("a server that is not running has a start command").run());
        Connection::open(running.address, from, &self.host)
    }

    /// Sends one request on a new connection, and checks what every answer of the component promises.
    pub(crate) fn ask(&self, request: &Request) -> Response {
        let response = self.connect().exchange(request);
        keeps_promises(&response);
        response
    }
}

/// Checks the headers of every answer: its type is not guessed, it is not stored, and it has a length unless it cannot have a body.
pub(crate) fn keeps_promises(response: &Response) {
    assert_eq!(response.header("x-content-type-options"), Some("nosniff"), "{response:?}");
    assert_eq!(response.header("cache-control"), Some("no-store"), "{response:?}");
    assert_eq!(response.header("content-length").is_some(), response.status != 204, "{response:?}");
}

impl Start {
    fn run(&self) -> Running {
        let variables =
            self.variables.iter().map(|(name, value)| (format!("SPIN_VARIABLE_{}", name.to_uppercase()), value));
        let mut child = Command::new("sh")
            .args(["-c", LIFELINE, &self.command])
            .current_dir(workspace())
            .env("SPIN_HTTP_LISTEN_ADDR", self.listen)
            .envs(variables)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh can be run");
        let output = BufReader::new(child.stdout.take().expect("standard output is a pipe"));
        let log = Arc::clone(&self.log);
        let (serving, ready) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some(address) = line.strip_prefix("Serving http://") {
                    // The receiver is gone after the first line.
                    let _ = serving.send(address.trim_end_matches('/').to_owned());
                }
                let mut log = log.lock().expect("the lock is not poisoned");
                log.push_str(&line);
                log.push('\n');
            }
        });
        // Minutes, because `spin up --build` compiles first.
        let Ok(address) = ready.recv_timeout(Duration::from_mins(5)) else {
            panic!("`{}` ended or did not serve within 300 s:\n{}", self.command, self.log.lock().unwrap())
        };
        let mut address: SocketAddr =
            address.parse().unwrap_or_else(|error| panic!("`{}` serves on {address:?}: {error}", self.command));
        // An IPv4-mapped address is reached over IPv4.
        address.set_ip(address.ip().to_canonical());
        Running { address, child: Some(child) }
    }
}

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("the crate is a member of the workspace")
}
