//! The shipped component: its imports, its exports, its size.

use std::fs;
use std::path::Path;

use wasmparser::{ComponentExternalKind, Parser, Payload};

/// The interfaces that it may import, without their versions. A name that ends in a slash means a whole package.
const ALLOWED: &[&str] =
    &["wasi:http/types", "wasi:io/", "wasi:cli/", "wasi:random/insecure-seed", "fermyon:spin/variables"];

/// In bytes. A node downloads and compiles them when a pod starts.
const MOST: usize = 230_000;

fn artefact() -> Vec<u8> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is a member of the workspace");
    let path = workspace.join("target/wasm32-wasip2/component/request_info.wasm");
    fs::read(&path).unwrap_or_else(|error| {
        let build = "cargo build --package request-info --target wasm32-wasip2 --profile component";
        panic!("{}: {error}; it is built with `{build}`", path.display())
    })
}

/// The names that the component itself imports and exports. Modules and components inside it are skipped.
fn interfaces(bytes: &[u8]) -> (Vec<String>, Vec<String>) {
    let (mut imports, mut exports) = (vec![], vec![]);
    let mut depth = 0;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.expect("the file is a component") {
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 0 => {
                imports.extend(
                    section.into_iter().map(|import| import.expect("the section can be read").name.name.to_owned()),
                );
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                let exported = section.into_iter().map(|export| export.expect("the section can be read"));
                exports.extend(
                    exported
                        .filter(|export| export.kind == ComponentExternalKind::Instance)
                        .map(|export| export.name.name.to_owned()),
                );
            }
            _ => {}
        }
    }
    (imports, exports)
}

#[test]
fn the_component_imports_no_file_system_no_socket_no_clock_and_no_outgoing_http() {
    let (imports, _) = interfaces(&artefact());
    assert!(!imports.is_empty());
    let allowed = |import: &str| {
        let name = import.split_once('@').map_or(import, |(name, _)| name);
        ALLOWED.iter().any(|allowed| name == *allowed || allowed.ends_with('/') && name.starts_with(allowed))
    };
    let others: Vec<_> = imports.iter().filter(|import| !allowed(import)).collect();
    assert!(others.is_empty(), "{others:?} are imported beside {ALLOWED:?}");
}

#[test]
fn the_component_exports_the_handler_that_every_spin_since_2_2_runs() {
    let (_, exports) = interfaces(&artefact());
    let [handler] = exports.as_slice() else { panic!("not one export: {exports:?}") };
    assert!(handler.starts_with("wasi:http/incoming-handler@0.2."), "{handler}");
}

#[test]
fn the_component_weighs_at_most_230_kilobytes() {
    let size = artefact().len();
    assert!(size <= MOST, "{size} bytes are more than {MOST}");
}
