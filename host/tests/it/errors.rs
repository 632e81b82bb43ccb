//! What cannot be served is refused with exit code 2, and with the reason and the remedy on standard error.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt as _;

use crate::host::{Application, everything_to_the_guest};

/// An empty component.
const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

/// A component that imports an instance `a:b/c` with a function `f`, and nothing else.
const IMPORTING_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0\
    \x07\x0e\x01\x42\x02\x01\x40\x00\x01\x00\x04\x00\x01f\x01\x00\
    \x0a\x0a\x01\x00\x05a:b/c\x05\x00";

/// An empty core module.
const CORE_MODULE: &[u8] = b"\0asm\x01\0\0\0";

/// Words that the reason must have.
type Words = &'static [&'static str];

#[track_caller]
fn is_refused(application: Application, words: &[&str]) {
    let (code, log) = application.fail();
    assert_eq!(code, Some(2), "{log}");
    for word in words {
        assert!(log.contains(word), "it does not say {word:?}: {log}");
    }
    assert!(!log.contains("panicked"), "{log}");
}

#[test]
fn a_manifest_with_an_unsupported_field_is_refused_with_its_place() {
    let cases: [(&str, &str, Words); 13] = [
        ("spin_manifest_version = 2", "spin_manifest_version = 1", &["bad manifest", "version is 1", "only version 2"]),
        ("spin_manifest_version = 2", "spin_manifest_version = ", &["bad manifest", "line 1, column 25"]),
        ("spin_manifest_version = 2\n", "", &["bad manifest", "spin_manifest_version"]),
        ("[[trigger.http]]", "[[trigger.redis]]", &["bad manifest", "line 3, column 11", "redis"]),
        ("route = ", "rout = ", &["bad manifest", "line 4, column 1", "rout"]),
        ("component = \"guest\"", "component = \"gust\"", &["route `/...`", "`gust`"]),
        ("component = \"guest\"", "component = { source = \"x\" }", &["bad manifest", "line 5, column 13"]),
        ("[component.guest]", "[component.guest]\nfiles = [\"*\"]", &["bad manifest", "line 7, column 1", "files"]),
        ("[component.guest]", "[component.guest", &["bad manifest", "line 6"]),
        ("\"/...\"", "\"/.well-known/spin/mine\"", &["`/.well-known/spin/mine`", "Spin itself"]),
        ("\"/...\"", "\"/a/:\"", &["bad route `/a/:`"]),
        (
            "[[trigger.http]]",
            "[[trigger.http]]\nroute = \"/...\"\ncomponent = \"guest\"\n[[trigger.http]]",
            &["`/...`", "twice"],
        ),
        ("spin_manifest_version = 2", "\u{feff}\u{0}", &["bad manifest", "line 1"]),
    ];
    for (part, replacement, words) in cases {
        let manifest = everything_to_the_guest();
        assert!(manifest.contains(part), "{part}");
        let application = Application::new(&manifest.replacen(part, replacement, 1));
        let path = application.directory.join("spin.toml");
        let is_about_the_file = words[0] == "bad manifest";
        let application = application.argument("--from").argument(path.to_str().unwrap());
        let place = if is_about_the_file { path.to_str().unwrap() } else { "" };
        is_refused(application, &[words, &[place]].concat());
    }
}

#[test]
fn a_variable_without_a_value_is_refused() {
    let cases: [(&str, Words); 6] = [
        ("[variables]\na = { required = true }", &["`a`", "required", "SPIN_VARIABLE_A"]),
        ("[variables]\na = { required = true, default = \"b\" }", &["`a`", "either"]),
        ("[variables]\nA = { default = \"b\" }", &["`A`", "lower-case"]),
        ("[variables]\nunset = { default = \"b\" }", &["`unset`", "SPIN_VARIABLE_UNSET", "not UTF-8"]),
        ("[component.guest.variables]\na = \"{{ b }}\"", &["`guest`", "`a`", "`b`", "[variables]"]),
        ("[component.guest.variables]\na = \"{{ b\"", &["`guest`", "`a`", "`{{` without `}}`"]),
    ];
    for (declaration, words) in cases {
        let application = Application::new(&(everything_to_the_guest() + declaration));
        is_refused(application.environment("SPIN_VARIABLE_UNSET", OsStr::from_bytes(b"\xff")), words);
    }
}

#[test]
fn a_file_that_is_not_a_runnable_component_is_refused() {
    let cases: [(&str, Option<&[u8]>, Words); 6] = [
        ("missing", None, &["cannot read component `guest`", "No such file", "build it with `make wasm`"]),
        ("empty", Some(b""), &["is not a WebAssembly component"]),
        ("text", Some(b"(component)"), &["is not a WebAssembly component"]),
        ("module", Some(CORE_MODULE), &["is not a WebAssembly component", "module"]),
        ("idle", Some(EMPTY_COMPONENT), &["does not export wasi:http/incoming-handler@0.2"]),
        ("greedy", Some(IMPORTING_COMPONENT), &["imports what this host does not offer", "a:b/c"]),
    ];
    for (name, content, words) in cases {
        let route = "[[trigger.http]]\nroute = \"/...\"\ncomponent = \"guest\"\n";
        let component = format!("[component.guest]\nsource = \"{name}.wasm\"\nbuild.command = \"make wasm\"\n");
        let application = Application::new(&format!("{}{route}{component}", crate::host::APPLICATION));
        let path = application.directory.join(format!("{name}.wasm"));
        if let Some(content) = content {
            fs::write(&path, content).unwrap();
        }
        is_refused(application, &[words, &[&*format!("{name}.wasm")]].concat());
    }
}

#[test]
fn a_missing_manifest_is_refused() {
    for from in ["nowhere.toml", "nowhere", "directory"] {
        let application = Application::new(&everything_to_the_guest()).argument("--from").argument(from);
        fs::create_dir(application.directory.join("directory")).unwrap();
        is_refused(application, &["cannot read the manifest", from, "No such file", "--from"]);
    }
}

#[test]
fn an_address_that_is_not_available_is_refused() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let cases: [(&str, Words); 5] = [
        (&address, &["already in use", "--listen"]),
        ("192.0.2.1:80", &["cannot listen on 192.0.2.1:80"]),
        ("127.0.0.1", &["--listen", "127.0.0.1:3000"]),
        ("127.0.0.1:65536", &["--listen", "127.0.0.1:3000"]),
        ("", &["--listen", "127.0.0.1:3000"]),
    ];
    for (address, words) in cases {
        let application = Application::new(&everything_to_the_guest());
        is_refused(application.environment("SPIN_HTTP_LISTEN_ADDR", address), &[words, &[address]].concat());
    }
}

#[test]
fn an_invalid_limit_is_refused() {
    for argument in ["--request-timeout=0", "--request-timeout=1.5", "--max-instance-memory=32M", "--unknown"] {
        let name = argument.split('=').next().unwrap();
        is_refused(Application::new(&everything_to_the_guest()).argument(argument), &[name]);
    }
}
