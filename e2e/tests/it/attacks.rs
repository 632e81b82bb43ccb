//! What hostile visitors can do to a pod under the manifest's memory limit.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::bed::Namespace;
use crate::manifest::Manifest;
use crate::road::road;
use crate::visitors;

/// How long another visitor may wait while an attack lasts.
const PATIENCE: Duration = Duration::from_secs(1);
/// How many other visitors come while an attack lasts.
const OTHERS: usize = 60;

/// Connections, and the bytes that each of them sends. Only the beginning of an answer is read.
struct Attack {
    name: &'static str,
    connections: usize,
    sends: fn() -> Vec<u8>,
    /// How each answer begins. Empty if no answer can come.
    answered: &'static str,
}

static ATTACKS: [Attack; 4] = [
    Attack {
        name: "the greatest head that is allowed, as the longest page, unread",
        connections: 64,
        sends: || {
            let value = "\"".repeat(16_000);
            let names = ["user-agent", "referer", "x-a", "x-b"];
            head("GET", &names.map(|name| format!("{name}: {value}\r\n")).concat())
        },
        answered: "HTTP/1.1 200",
    },
    Attack {
        name: "a head of 400 KiB, unread",
        connections: 16,
        // The server itself reads no more than 400 KiB and 16 bytes.
        sends: || head("GET", &format!("user-agent: {}\r\n", "\"".repeat(400 * 1024 - 200))),
        answered: "HTTP/1.1 431",
    },
    Attack {
        name: "a body that stops one byte before its end",
        connections: 400,
        sends: || {
            let form = "content-type: application/x-www-form-urlencoded\r\ncontent-length: 65536\r\n";
            [head("POST", form), b"event=".to_vec(), vec![1; 65536 - 6 - 1]].concat()
        },
        answered: "",
    },
    Attack {
        name: "a connection that asks once and stays",
        connections: 1000,
        sends: || head("GET", ""),
        answered: "HTTP/1.1 200",
    },
];

fn head(method: &str, headers: &str) -> Vec<u8> {
    format!("{method} /?format=html HTTP/1.1\r\nhost: request-info.test\r\n{headers}\r\n").into_bytes()
}

impl Attack {
    /// Returns the connections, which stay open while the caller holds them.
    fn begin(&self, server: SocketAddr) -> io::Result<Vec<TcpStream>> {
        let bytes = (self.sends)();
        let mut streams = Vec::new();
        for _ in 0..self.connections {
            let mut stream = TcpStream::connect(server)?;
            stream.set_read_timeout(Some(Duration::from_secs(30)))?;
            stream.set_write_timeout(Some(Duration::from_secs(30)))?;
            stream.write_all(&bytes)?;
            streams.push(stream);
        }
        for stream in &mut streams {
            let mut begins = vec![0; self.answered.len()];
            stream.read_exact(&mut begins)?;
            assert_eq!(String::from_utf8_lossy(&begins), self.answered, "{}", self.name);
        }
        Ok(streams)
    }
}

pub(crate) fn a_visitor_cannot_end_a_pod_or_keep_others_from_it() {
    let road = road();
    let namespace = Namespace::create("attacks");
    let manifest = Manifest::quick().with("/spec/replicas", json!(1));
    namespace.deploy(road, &manifest, &road.commits[0], &[]).expect(0);
    let pod = &namespace.pods()[0];
    let server = namespace.node_port(pod["spec"]["nodeName"].as_str().expect("the pod has a node"));
    for attack in &ATTACKS {
        let begun = thread::spawn(move || {
            visitors::enter_namespace()?;
            attack.begin(server)
        });
        let (mut slowest, mut others) = (Duration::ZERO, 0);
        // While the attack begins, and then while it lasts.
        while !begun.is_finished() || others < OTHERS {
            let asked = Instant::now();
            visitors::get(server, "/?format=json").unwrap_or_else(|error| panic!("{}: {error}", attack.name));
            slowest = slowest.max(asked.elapsed());
            if begun.is_finished() {
                others += 1;
            }
        }
        let streams = begun.join().expect("the thread does not panic").expect("the attack can start");
        assert!(slowest < PATIENCE, "{}: another visitor waited {slowest:?}", attack.name);
        drop(streams);
        let status = namespace.pods()[0]["status"]["containerStatuses"][0].clone();
        assert_eq!(status["restartCount"], 0, "{}: {status}", attack.name);
    }
}
