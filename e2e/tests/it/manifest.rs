//! The shipped manifest, and what a test changes in it.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::bed::{root, run};
use crate::runtime::Runtime;

#[derive(Clone)]
pub(crate) struct Manifest(Vec<Value>);

impl Manifest {
    /// As `make deploy` gives it to the deployer.
    pub(crate) fn shipped() -> Self {
        Self::of(Runtime::of_this_run())
    }

    pub(crate) fn of(runtime: Runtime) -> Self {
        let path = root().join("kubernetes/deployment.yaml.tmp");
        let text = match runtime {
            Runtime::Shim => std::fs::read_to_string(&path).expect("the file is in the repository"),
            Runtime::Standalone => {
                let shipped = std::fs::File::open(&path).expect("the file is in the repository");
                run(Command::new(root().join("road/template.sh")).stdin(shipped))
            }
        };
        let documents =
            serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self(documents)
    }

    /// The shipped manifest with shorter times: old pods get 2 s to end, and new pods count as available after 1 s.
    pub(crate) fn quick() -> Self {
        Self::shipped().hurried()
    }

    pub(crate) fn hurried(self) -> Self {
        self.with("/spec/minReadySeconds", json!(1))
            .with("/spec/template/spec/terminationGracePeriodSeconds", json!(4))
            .pre_stop(2)
    }

    /// The same, but with a progress deadline of 20 s.
    pub(crate) fn impatient(self) -> Self {
        self.with("/spec/progressDeadlineSeconds", json!(20))
    }

    pub(crate) fn pre_stop(self, seconds: u32) -> Self {
        self.with_container("/lifecycle/preStop/sleep/seconds", json!(seconds))
    }

    /// The same with another value in the Deployment, at a JSON pointer (RFC 6901) whose last part may be new.
    pub(crate) fn with(mut self, pointer: &str, value: Value) -> Self {
        let deployment = self.0.iter_mut().find(|document| document["kind"] == "Deployment");
        let (parent, key) = pointer.rsplit_once('/').expect("a JSON pointer begins with /");
        let deployment = deployment.expect("a Deployment is shipped");
        let parent =
            deployment.pointer_mut(parent).unwrap_or_else(|| panic!("nothing at {parent} in the shipped Deployment"));
        parent[key] = value;
        self
    }

    /// The same without what the Deployment has at a JSON pointer.
    pub(crate) fn without(self, pointer: &str) -> Self {
        let (parent, key) = pointer.rsplit_once('/').expect("a JSON pointer begins with /");
        let mut fields = self.deployment().pointer(parent).cloned().unwrap_or_default();
        let removed = fields.as_object_mut().and_then(|fields| fields.remove(key));
        assert!(removed.is_some(), "nothing at {pointer} in the shipped Deployment");
        self.with(parent, fields)
    }

    /// The same with one more document, the last one.
    pub(crate) fn and(mut self, document: Value) -> Self {
        self.0.push(document);
        self
    }

    pub(crate) fn with_container(self, pointer: &str, value: Value) -> Self {
        self.with(&format!("/spec/template/spec/containers/0{pointer}"), value)
    }

    /// The same with one more environment variable in the container.
    pub(crate) fn with_environment(self, variable: Value) -> Self {
        let mut environment = self.container()["env"].clone();
        environment.as_array_mut().expect("the container has an environment").push(variable);
        self.with_container("/env", environment)
    }

    pub(crate) fn deployment(&self) -> &Value {
        self.0.iter().find(|document| document["kind"] == "Deployment").expect("a Deployment is shipped")
    }

    pub(crate) fn container(&self) -> &Value {
        &self.deployment()["spec"]["template"]["spec"]["containers"][0]
    }

    /// As a template for the deployer.
    pub(crate) fn write(&self, path: &Path) {
        let documents: Vec<_> = self.0.iter().map(ToString::to_string).collect();
        std::fs::write(path, documents.join("\n---\n")).expect("the template can be written");
    }
}
