//! The host under test: `REQUEST_INFO_HOST` if it is set, else the one that cargo built beside this suite.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use conformance::{Connection, PATIENCE, Response, get};

/// The head of a manifest whose routes are to follow.
pub(crate) const APPLICATION: &str = "spin_manifest_version = 2\napplication.name = \"test\"\n";

/// Whether this machine has IPv6. The line is written past the test harness, which hides what a test prints that passes.
pub(crate) fn has_ipv6() -> bool {
    let is_there = TcpListener::bind("[::1]:0").is_ok();
    if !is_there {
        let name = std::thread::current().name().unwrap_or_default().to_owned();
        let line = format!("SKIPPED for IPv6, which this machine does not have: {name}\n");
        io::stderr().write_all(line.as_bytes()).unwrap();
    }
    is_there
}

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
        let address = line.strip_prefix("Serving http://").and_then(|address| address.parse().ok());
        let address = address.unwrap_or_else(|| panic!("it does not serve: {line}{}", host.log()));
        Host { address, ..host }
    }

    /// Runs it until it ends by itself. Returns the exit code and the standard error.
    pub(crate) fn fail(self) -> (Option<i32>, String) {
        let (mut host, line) = self.start();
        assert_eq!(line, "", "it serves");
        let status = host.exit();
        (status.code(), host.log())
    }

    /// Runs another command instead. Returns the exit code and the standard error.
    pub(crate) fn run(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let mut command = Command::new(self.command.get_program());
        let environment = self.command.get_envs().filter_map(|(name, value)| Some((name, value?)));
        command.env_clear().envs(environment).current_dir(&self.directory).args(arguments).stdin(Stdio::null());
        let status = Process::start(&mut command, &self.directory).exit();
        (status.code(), self.read("log"))
    }

    /// Starts it. Returns it with the first line of its standard output, which is empty if it has already ended.
    fn start(mut self) -> (Host, String) {
        let mut process = Process::start(&mut self.command, &self.directory);
        let line = until("the host serves or ends", || {
            let has_ended = process.0.try_wait().unwrap().is_some();
            let output = self.read("output");
            let end_of_line = output.find('\n');
            (has_ended || end_of_line.is_some()).then(|| output[..end_of_line.unwrap_or(0)].to_owned())
        });
        (Host { address: ([0; 4], 0).into(), process, application: self }, line)
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.directory.join(file)).expect("the file is UTF-8")
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        // It is in cargo's directory for temporary files, where leftovers do no harm.
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// A host that serves.
pub(crate) struct Host {
    pub(crate) address: SocketAddr,
    process: Process,
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

    /// The answer to a request on its own connection.
    #[track_caller]
    pub(crate) fn get(&self, target: &str) -> Response {
        self.connect().get(target)
    }

    /// A connection on which a GET was sent and nothing was read yet.
    pub(crate) fn begin(&self, target: &str) -> Connection {
        self.connect().sending(get(target).encode("example.com"))
    }

    /// What was printed on standard error.
    pub(crate) fn log(&self) -> String {
        self.application.read("log")
    }

    /// Waits until something is printed on standard error.
    pub(crate) fn wait_for_log(&self, text: &str) {
        until(&format!("{text:?} is printed"), || self.log().contains(text).then_some(()));
    }

    /// Waits until none of its threads runs. A client may have an answer before the host has recorded that it was sent.
    pub(crate) fn wait_until_it_rests(&self) {
        let threads = format!("/proc/{}/task", self.process.0.id());
        let sleeps = |thread: &Path| {
            let status = fs::read_to_string(thread.join("stat")).unwrap();
            status.rsplit_once(") ").unwrap().1.starts_with('S')
        };
        until("the host rests", || {
            fs::read_dir(&threads).unwrap().all(|thread| sleeps(&thread.unwrap().path())).then_some(())
        });
    }

    /// What was printed on standard output after the first line. It ends the host.
    pub(crate) fn rest_of_output(self) -> String {
        drop(self.process);
        self.application.read("output").split_once('\n').expect("the host has printed its first line").1.to_owned()
    }

    pub(crate) fn signal(&self, name: &str) {
        let status =
            Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &self.process.0.id().to_string()]).status();
        assert!(status.expect("sh can be run").success());
    }

    /// Waits until it has ended.
    pub(crate) fn exit(&mut self) -> ExitStatus {
        self.process.exit()
    }
}

/// The process of a host, which does not outlive its test.
struct Process(Child);

impl Process {
    /// Its standard output and standard error become files of the directory.
    fn start(command: &mut Command, directory: &Path) -> Self {
        let file = |name| File::create(directory.join(name)).unwrap();
        let child = command.stdout(file("output")).stderr(file("log")).spawn();
        Self(child.unwrap_or_else(|error| panic!("cannot run {command:?}: {error}")))
    }

    fn exit(&mut self) -> ExitStatus {
        until("the host ends", || self.0.try_wait().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // This fails if the process has already ended. No process can ignore this signal, so the wait is short.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until a condition returns a value.
fn until<T>(event: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(outcome) = condition() {
            return outcome;
        }
        assert!(Instant::now() < deadline, "this did not happen within {PATIENCE:?}: {event}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
