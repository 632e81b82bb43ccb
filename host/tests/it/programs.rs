//! The host's other commands: `compile`, whose code `--precompiled` uses, and `healthcheck`.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use crate::host::{APPLICATION, Application, everything_to_the_guest, has_ipv6};

/// A manifest whose component is its own copy, beside it.
fn with_a_copy() -> Application {
    let manifest = format!(
        "{APPLICATION}[[trigger.http]]\nroute = \"/...\"\ncomponent = \"guest\"\n[component.guest]\nsource = 'guest.wasm'\n"
    );
    let application = Application::new(&manifest);
    let guest = crate::host::guest();
    let source = guest.split('\'').nth(1).unwrap();
    fs::copy(source, application.directory.join("guest.wasm")).unwrap();
    application
}

const NATIVE: &[&str] = &["compile"];
const OTHER: &[&str] = &[
    "compile",
    "--target",
    if cfg!(target_arch = "aarch64") { "x86_64-unknown-linux-gnu" } else { "aarch64-unknown-linux-gnu" },
];

#[test]
fn precompiled_code_is_used_if_it_fits_and_compiled_again_if_not() {
    type Change = fn(&Path);
    let cases: [(&str, &[&str], Change, &str); 6] = [
        ("as it was made", NATIVE, |_| (), ""),
        ("for another processor", OTHER, |_| (), "is for another host: "),
        ("none", NATIVE, |directory| fs::remove_file(directory.join("guest.cwasm")).unwrap(), "cannot read "),
        (
            "cut off",
            NATIVE,
            |directory| {
                let file = fs::File::options().write(true).open(directory.join("guest.cwasm")).unwrap();
                file.set_len(file.metadata().unwrap().len() - 1).unwrap();
            },
            "was made from another component, or is truncated",
        ),
        ("empty", NATIVE, |directory| fs::write(directory.join("guest.cwasm"), "").unwrap(), "is truncated"),
        (
            "of another component",
            NATIVE,
            |directory| {
                // An empty custom section changes nothing but the bytes.
                let mut file = fs::File::options().append(true).open(directory.join("guest.wasm")).unwrap();
                file.write_all(b"\0\x02\x01x").unwrap();
            },
            "was made from another component",
        ),
    ];
    for (name, compile, change, said) in cases {
        let application = with_a_copy();
        let (code, log) = application.run(compile);
        assert_eq!((code, &*log), (Some(0), ""), "{name}");
        change(&application.directory);
        let host = application.argument("--precompiled").serve();
        assert_eq!(host.get("/count").text(), "1", "{name}");
        let log = host.log();
        assert_eq!(log.lines().count(), usize::from(!said.is_empty()), "{name}: {log}");
        assert!(log.contains(said), "{name}: {log}");
    }
}

#[test]
fn precompiled_code_is_used_only_with_the_flag() {
    let application = with_a_copy();
    fs::write(application.directory.join("guest.cwasm"), "").unwrap();
    let host = application.serve();
    assert_eq!((host.get("/count").text(), &*host.log()), ("1", ""));
}

#[test]
fn what_cannot_be_compiled_is_refused() {
    let application = with_a_copy();
    let (code, log) = application.run(&["compile", "--target", "pdp11"]);
    assert!(code == Some(2) && log.contains("cannot compile for pdp11"), "{code:?} {log}");
    fs::write(application.directory.join("guest.wasm"), "(component").unwrap();
    let (code, log) = application.run(NATIVE);
    assert!(code == Some(2) && log.contains("guest.wasm") && !log.contains("panicked"), "{code:?} {log}");
}

/// The result of the health check for a server that gives one answer.
fn check(listen: &str, answer: &'static str) -> (Option<i32>, String, String) {
    let server = TcpListener::bind(listen).unwrap();
    let server_address = server.local_addr().unwrap();
    let address = server_address.to_string();
    let serve = std::thread::spawn(move || {
        let mut stream = server.accept().unwrap().0;
        let mut asked = vec![0; 1024];
        let length = stream.read(&mut asked).unwrap();
        stream.write_all(answer.as_bytes()).unwrap();
        asked.truncate(length);
        String::from_utf8(asked).unwrap()
    });
    let application = Application::new(&everything_to_the_guest()).environment("SPIN_HTTP_LISTEN_ADDR", address);
    let (code, log) = application.run(&["healthcheck"]);
    // Ends the server's wait if it got no request.
    drop(TcpStream::connect(server_address));
    (code, log, serve.join().unwrap())
}

#[test]
fn a_server_is_healthy_that_answers_200() {
    let cases = [
        ("127.0.0.1:0", "HTTP/1.1 200 OK\r\n\r\n", 0, ""),
        ("0.0.0.0:0", "HTTP/1.1 200 OK\r\n\r\n", 0, ""),
        ("127.0.0.1:0", "HTTP/1.1 503 Service Unavailable\r\n\r\n", 1, "was answered with 503, not with 200\n"),
        ("127.0.0.1:0", "HTTP", 1, "was not answered"),
        ("127.0.0.1:0", "", 1, "was not answered"),
        ("[::1]:0", "HTTP/1.1 200 OK\r\n\r\n", 0, ""),
        ("[::]:0", "HTTP/1.1 200 OK\r\n\r\n", 0, ""),
        ("[::1]:0", "HTTP/1.1 503 Service Unavailable\r\n\r\n", 1, "was answered with 503, not with 200\n"),
    ];
    let has_ipv6 = has_ipv6();
    for (listen, answer, expected, said) in cases {
        let is_ipv6 = listen.starts_with('[');
        if is_ipv6 && !has_ipv6 {
            continue;
        }
        let (code, log, asked) = check(listen, answer);
        assert!(code == Some(expected) && log.contains(said), "{listen} {answer:?}: {code:?} {log}");
        let host = if is_ipv6 { "[::1]" } else { "127.0.0.1" };
        assert!(asked.starts_with(&format!("GET /healthz HTTP/1.1\r\nhost: {host}:")), "{asked}");
        assert!(log.lines().count() <= 1, "{log}");
    }
}

#[test]
fn an_address_where_nothing_listens_is_not_healthy() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let application = Application::new(&everything_to_the_guest());
    let (code, log) = application.run(&["healthcheck", "--listen", &free.to_string()]);
    assert!(code == Some(1) && log.contains("was not answered: "), "{code:?} {log}");
}
