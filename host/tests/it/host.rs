//! The host under test: `REQUEST_INFO_HOST` if it is set, else the one that cargo built beside this suite.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use conformance::{Connection, PATIENCE, Response, get};

/// The head of a manifest whose routes are to follow.
pub(crate) const APPLICATION: &str = "spin_manifest_version = 2\napplication.name = \"test\"\n";

/// A manifest that sends everything to the guest; what is appended to it describes the guest further.
pub(crate) fn everything_to_the_guest() -> String {
    format!("{APPLICATION}[[trigger.http]]\nroute = \"/...\"\ncomponent = \"guest\"\n{}", guest())
}

/// The guest's own part of a manifest.
pub(crate) fn guest() -> String {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is a member of the workspace");
    let source = workspace.join("target/wasm32-wasip2/component/host_test_guest.wasm");
    assert!(
        source.exists(),
        "{} is missing: build it with `cargo build -p host-test-guest --target wasm32-wasip2 --profile component`",
        source.display()
    );
    format!("[component.guest]\nsource = '{}'\n", source.display())
}

/// A directory with a manifest, and the command that serves it.
pub(crate) struct Application {
    pub(crate) directory: PathBuf,
    command: Command,
}

impl Application {
    pub(crate) fn new(manifest: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join("spin.toml"), manifest).unwrap();
        let host = std::env::var_os("REQUEST_INFO_HOST");
        let mut command = Command::new(host.unwrap_or_else(|| env!("CARGO_BIN_EXE_request-info-host").into()));
        command.env_clear().env("SPIN_HTTP_LISTEN_ADDR", "127.0.0.1:0").current_dir(&directory).stdin(Stdio::null());
        Self { directory, command }
    }

    pub(crate) fn argument(mut self, argument: &str) -> Self {
        self.command.arg(argument);
        self
    }

    pub(crate) fn environment(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Starts it and waits until it serves.
    pub(crate) fn serve(self) -> Host {
        let (host, line) = self.start();
        let address = line.trim_end().strip_prefix("Serving http://").and_then(|address| address.parse().ok());
        let address = address.unwrap_or_else(|| panic!("it does not serve: {line}{}", host.log()));
        Host { address, ..host }
    }

    /// Runs it to its end, which is to come by itself: the exit code, and what was printed on standard error.
    pub(crate) fn fail(self) -> (Option<i32>, String) {
        let (mut host, line) = self.start();
        assert_eq!(line, "", "it serves");
        let status = host.exit();
        (status.code(), host.log())
    }

    /// Runs another command in its place: the exit code, and what was printed on standard error.
    pub(crate) fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(self.command.get_program());
        let environment = self.command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        command.env_clear().envs(environment).current_dir(&self.directory).args(arguments).stdin(Stdio::null());
        let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
        (output.status.code(), String::from_utf8(output.stderr).expect("it is UTF-8"))
    }

    /// With the first line of its standard output, which is empty if it ended before.
    fn start(mut self) -> (Host, String) {
        let log = File::create(self.log()).unwrap();
        let child = self.command.stdout(Stdio::piped()).stderr(log).spawn();
        let mut process = Process(child.unwrap_or_else(|error| panic!("cannot run {:?}: {error}", self.command)));
        let mut stdout = BufReader::new(process.0.stdout.take().expect("it is piped"));
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        (Host { address: ([0; 4], 0).into(), process, stdout, application: self }, line)
    }

    fn log(&self) -> PathBuf {
        self.directory.join("log")
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        // It is below cargo's own directory for such things; what is left of it does no harm.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A host that serves.
pub(crate) struct Host {
    pub(crate) address: SocketAddr,
    process: Process,
    stdout: BufReader<ChildStdout>,
    application: Application,
}

impl Host {
    /// One that sends everything to the guest.
    pub(crate) fn start() -> Self {
        Application::new(&everything_to_the_guest()).serve()
    }

    #[track_caller]
    pub(crate) fn connect(&self) -> Connection {
        Connection::open(self.address, None, "example.com")
    }

    /// What a connection of its own is answered.
    #[track_caller]
    pub(crate) fn get(&self, target: &str) -> Response {
        self.connect().get(target)
    }

    /// A connection on which a GET was sent and nothing was received.
    pub(crate) fn begin(&self, target: &str) -> Connection {
        self.connect().sending(get(target).encode("example.com"))
    }

    /// What was printed on standard error.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.application.log()).expect("it is UTF-8")
    }

    /// Waits until something is printed on standard error.
    pub(crate) fn wait_for_log(&self, text: &str) {
        until(&format!("{text:?} is printed"), || self.log().contains(text).then_some(()));
    }

    /// What was printed on standard output after the first line. It ends the host.
    pub(crate) fn rest_of_output(mut self) -> String {
        drop(self.process);
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        rest
    }

    pub(crate) fn signal(&self, name: &str) {
        let status =
            Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &self.process.0.id().to_string()]).status();
        assert!(status.expect("sh runs").success());
    }

    /// Waits until it has ended.
    pub(crate) fn exit(&mut self) -> ExitStatus {
        until("the host ends", || self.process.0.try_wait().unwrap())
    }
}

/// The process of a host, which does not outlive its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It fails where it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for what a condition gives.
fn until<T>(event: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(outcome) = condition() {
            return outcome;
        }
        assert!(Instant::now() < deadline, "after {} s of waiting until {event}", PATIENCE.as_secs());
        std::thread::sleep(Duration::from_millis(5));
    }
}
