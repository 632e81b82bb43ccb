//! What only the standalone image promises.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::bed::{Namespace, await_true, process_of, run};
use crate::manifest::Manifest;
use crate::road::{image, road};
use crate::visitors;

pub(crate) fn docker_alone_runs_it_and_finds_it_healthy() {
    let docker = |arguments: &[&str]| run(Command::new("docker").args(arguments)).trim().to_owned();
    // The cluster's Docker has no bridge network.
    docker(&["network", "create", "visitors"]);
    let image = image(&road().commits[0]);
    let network = ["--detach", "--network=visitors", "--publish=127.0.0.1::8080"];
    let hardened = ["--read-only", "--cap-drop=ALL"];
    let container = docker(&[&["run"], &network[..], &hardened, &[&image]].concat());
    let server = docker(&["port", &container, "8080"]);
    let version = || {
        run(Command::new("curl").args([
            "--silent",
            "--retry-all-errors",
            "--retry",
            "5",
            &format!("http://{server}/version"),
        ]))
    };
    let version: Value = serde_json::from_str(&version()).expect("/version answers with JSON");
    assert_eq!(version["commit"], *road().commits[0]);
    let health = || docker(&["inspect", "--format={{.State.Health.Status}}", &container]);
    await_true("Docker finds it healthy", Duration::from_secs(30), || health() == "healthy");

    let told = Instant::now();
    docker(&["stop", &container]);
    assert_eq!(docker(&["inspect", "--format={{.State.ExitCode}}", &container]), "0");
    assert!(told.elapsed() < Duration::from_secs(10), "Docker ended it after {:?}", told.elapsed());
}

/// Connections whose heads never end.
const SLOW: usize = 2000;
/// How long another visitor may wait.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) fn heads_that_arrive_a_byte_per_second_do_not_block_other_visitors() {
    let namespace = Namespace::create("slow-heads");
    namespace.deploy(road(), &Manifest::quick().with("/spec/replicas", json!(1)), &road().commits[0], &[]).expect(0);
    let server = namespace.node_port(namespace.pods()[0]["spec"]["nodeName"].as_str().expect("the pod has a node"));
    let slow = std::thread::spawn(move || trickle(server, Duration::from_secs(30)));
    let (mut asked, mut slowest) = (0, Duration::ZERO);
    while !slow.is_finished() {
        let since = Instant::now();
        visitors::get(server, "/?format=json").unwrap_or_else(|error| panic!("after {asked} answers: {error}"));
        slowest = slowest.max(since.elapsed());
        asked += 1;
        std::thread::sleep(Duration::from_millis(50));
    }
    slow.join().expect("the thread does not panic").expect("the connections are taken");
    assert!(slowest < PATIENCE, "another visitor waited {slowest:?}");
    assert_eq!(namespace.pods()[0]["status"]["containerStatuses"][0]["restartCount"], 0);
}

/// Sends one byte of a head per second on each of [`SLOW`] connections. The server may close them.
fn trickle(server: SocketAddr, lasts: Duration) -> io::Result<()> {
    visitors::enter_namespace()?;
    let mut streams = (0..SLOW).map(|_| TcpStream::connect(server)).collect::<io::Result<Vec<_>>>()?;
    let head = b"GET / HTTP/1.1\r\nhost: request-info.test\r\nx-slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let begun = Instant::now();
    for (byte, second) in head.iter().zip(0..lasts.as_secs()) {
        std::thread::sleep((begun + Duration::from_secs(second)).saturating_duration_since(Instant::now()));
        streams.retain_mut(|stream| stream.write_all(&[*byte]).is_ok());
    }
    Ok(())
}

pub(crate) fn a_killed_process_loses_only_the_request_that_is_under_way() {
    let namespace = Namespace::create("killed");
    namespace.deploy(road(), &Manifest::quick(), &road().commits[0], &[]).expect(0);
    let pods = namespace.pods();
    let address = |pod: &Value| -> SocketAddr {
        format!("{}:8080", pod["status"]["podIP"].as_str().expect("the pod has an address"))
            .parse()
            .expect("the address can be parsed")
    };
    let open = |pod: &Value| -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(address(pod))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        stream.write_all(b"POST / HTTP/1.1\r\nhost: request-info.test\r\ncontent-length: 2\r\n\r\na")?;
        Ok(stream)
    };
    let streams: Vec<_> = pods.iter().map(|pod| open(pod).expect("a pod answers")).collect();
    let process = process_of(pods[0]["metadata"]["uid"].as_str().expect("a pod has a uid"));
    run(Command::new("kill").args(["-KILL", &process.to_string()]));

    let end = |mut stream: TcpStream| -> io::Result<bool> {
        let mut begins = [0; 12];
        stream.write_all(b"b")?;
        stream.read_exact(&mut begins)?;
        Ok(&begins == b"HTTP/1.1 200")
    };
    let answered: Vec<_> = streams.into_iter().map(|stream| end(stream).unwrap_or(false)).collect();
    assert_eq!(answered, [false, true, true]);
    await_true("the pod answers again", Duration::from_secs(20), || open(&pods[0]).and_then(end).unwrap_or(false));
}
