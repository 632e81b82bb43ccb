//! The part of the manifest, `spin.toml`, that this host understands.
//!
//! Everything else that Spin knows (other triggers, components from registries, files, …) is refused as an unknown field or a
//! wrong type, with its position. Otherwise an application might seem to work because a part of it was ignored.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde::de::IgnoredAny;

/// A whole manifest, version 2.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    spin_manifest_version: u32,
    #[serde(rename = "application")]
    _application: IgnoredAny,
    /// The application's variables, by name.
    #[serde(default)]
    pub(crate) variables: BTreeMap<String, Variable>,
    pub(crate) trigger: Triggers,
    /// The components, by their ids.
    #[serde(default)]
    pub(crate) component: BTreeMap<String, Component>,
}

/// A variable that can be set from outside.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Variable {
    pub(crate) default: Option<String>,
    #[serde(default)]
    pub(crate) required: bool,
    #[serde(rename = "secret")]
    _secret: Option<IgnoredAny>,
    #[serde(rename = "description")]
    _description: Option<IgnoredAny>,
}

/// The triggers that start a component: here only HTTP requests.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Triggers {
    pub(crate) http: Vec<HttpTrigger>,
}

/// Sends the requests for one route to one component.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct HttpTrigger {
    pub(crate) route: String,
    pub(crate) component: String,
    #[serde(rename = "id")]
    _id: Option<IgnoredAny>,
    #[serde(rename = "executor")]
    _executor: Option<Executor>,
}

/// How a component is called. Spin has other ways; this host has only the usual one, under both of its names.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
enum Executor {
    #[serde(alias = "spin")]
    Http {},
}

/// One component.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Component {
    /// The path of the Wasm file. It is relative to the manifest until [`Manifest::load`] has resolved it.
    pub(crate) source: PathBuf,
    /// Templates for the component's variables, by name.
    #[serde(default)]
    pub(crate) variables: BTreeMap<String, String>,
    /// The environment variables of the component.
    #[serde(default)]
    pub(crate) environment: BTreeMap<String, String>,
    pub(crate) build: Option<Build>,
    // This host offers no outgoing requests, so it does not matter which are allowed.
    #[serde(rename = "allowed_outbound_hosts")]
    _allowed_outbound_hosts: Option<IgnoredAny>,
    #[serde(rename = "description")]
    _description: Option<IgnoredAny>,
    #[serde(rename = "targets")]
    _targets: Option<IgnoredAny>,
    #[serde(rename = "tool")]
    _tool: Option<IgnoredAny>,
}

/// How `spin build` makes the Wasm file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Build {
    command: Commands,
    workdir: Option<String>,
    #[serde(rename = "watch")]
    _watch: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Commands {
    One(String),
    Several(Vec<String>),
}

impl Manifest {
    /// Reads a manifest, given its path or that of its directory.
    ///
    /// # Errors
    /// When it cannot be read, is not TOML, or asks for something that this host does not do. Names the line and the column.
    pub(crate) fn load(from: &Path) -> anyhow::Result<Self> {
        let path = if from.is_dir() { from.join("spin.toml") } else { from.to_owned() };
        let text = std::fs::read_to_string(&path).with_context(|| {
            format!("cannot read the manifest {}: name it, or its directory, with --from", path.display())
        })?;
        let mut manifest = Self::parse(&text).with_context(|| format!("bad manifest {}", path.display()))?;
        let directory = path.parent().unwrap_or(Path::new(""));
        for component in manifest.component.values_mut() {
            component.source = directory.join(&component.source);
        }
        Ok(manifest)
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let manifest: Self = toml::from_str(text).context("this host knows only a part of what `spin up` knows")?;
        ensure!(
            manifest.spin_manifest_version == 2,
            "spin_manifest_version is {}, but this host supports only version 2",
            manifest.spin_manifest_version
        );
        Ok(manifest)
    }
}

impl Build {
    /// The command line that builds the component.
    pub(crate) fn command_line(&self) -> String {
        let commands = match &self.command {
            Commands::One(command) => command.clone(),
            Commands::Several(commands) => commands.join(" && "),
        };
        match &self.workdir {
            Some(directory) => format!("cd {directory} && {commands}"),
            None => commands,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
        spin_manifest_version = 2
        application = { name = "app", version = "1.0.0", authors = ["me"] }
        [variables]
        colour = { default = "red", description = "of the roof", secret = true }
        [[trigger.http]]
        id = "all"
        route = "/..."
        component = "web"
        executor = { type = "spin" }
        [component.web]
        source = "web.wasm"
        description = "shows"
        allowed_outbound_hosts = []
        environment = { LANG = "C" }
        variables = { colour = "{{ colour }}" }
        build = { command = ["make", "make strip"], workdir = "web", watch = ["src"] }
    "#;

    #[test]
    fn manifests_of_the_usual_templates_are_read() {
        let manifest = Manifest::parse(GOOD).unwrap();
        assert_eq!(manifest.trigger.http[0].component, "web");
        assert_eq!(manifest.variables["colour"].default.as_deref(), Some("red"));
        assert_eq!(manifest.component["web"].build.as_ref().unwrap().command_line(), "cd web && make && make strip");
    }

    #[test]
    fn an_unsupported_field_is_refused_with_its_place() {
        let cases = [
            (
                "source = \"web.wasm\"",
                "source = { url = \"https://example.com/web.wasm\", digest = \"sha256:00\" }",
                "line 12, column 18",
                "invalid type: map",
            ),
            ("description = \"shows\"", "files = [\"assets/*\"]", "line 13, column 9", "unknown field `files`"),
            ("type = \"spin\"", "type = \"wagi\"", "line 10, column", "unknown variant `wagi`"),
            ("route = \"/...\"", "route = { private = true }", "line 8, column 17", "invalid type: map"),
            (
                "component = \"web\"",
                "static_response = { body = \"hi\" }",
                "line 9, column 9",
                "unknown field `static_response`",
            ),
            (
                "[[trigger.http]]",
                "[[trigger.redis]]\nchannel = \"c\"\n[[trigger.http]]",
                "line 6, column 19",
                "unknown field `redis`",
            ),
            ("[component.web]", "[component.web", "line 11, column", "unclosed table"),
            ("spin_manifest_version = 2", "spin_manifest_version = 3", "", "spin_manifest_version is 3"),
        ];
        for (part, replacement, place, reason) in cases {
            assert!(GOOD.contains(part), "{part}");
            let error = Manifest::parse(&GOOD.replacen(part, replacement, 1)).unwrap_err();
            let error = format!("{error:#}");
            assert!(error.contains(place) && error.contains(reason), "{replacement}: {error}");
        }
    }
}
