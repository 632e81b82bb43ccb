//! The service's own description of itself.

use libtest_mimic::Trial;

use crate::client::get;
use crate::server::Server;
use crate::trial;

pub(crate) fn trials(server: &'static Server) -> Vec<Trial> {
    vec![trial("openapi: the document is of version 3.1", move || {
        let document = server.ask(&get("/openapi.json")).json();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1."), "{document}");
    })]
}
