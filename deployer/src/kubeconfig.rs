//! How to reach the cluster: kubeconfig files, contexts, proxies and credential plugins, read as kubectl reads them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use kube::Config;
use kube::config::{Cluster, ExecConfig, ExecInteractiveMode, KubeConfigOptions, Kubeconfig};
use tokio::process::Command;
use tokio::time::timeout;

use crate::outcome::{Ending, Reason};

/// The time limit of a credential plugin, which may ask a person to log in.
const PLUGIN_PATIENCE: Duration = Duration::from_mins(1);

/// How to reach the cluster of `context`, else of the current context, else the one that this runs in.
pub(crate) async fn load(context: Option<&str>) -> Result<Config, Ending> {
    let invalid = |error: &dyn std::fmt::Display| Ending::new(Reason::KubeconfigInvalid, error.to_string());
    let paths = paths();
    let files = read(&paths).map_err(|error| invalid(&error))?;
    let Some(mut files) = files.filter(|files| context.is_some() || files.current_context.is_some()) else {
        let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        let no_context = match context {
            Some(context) => format!("there is no context {context:?}"),
            None => "no cluster is configured: there is no current context".to_owned(),
        };
        let no_context = format!("{no_context} in the kubeconfig {}", paths.join(":"));
        return match context {
            Some(_) => Err(invalid(&no_context)),
            None => Config::incluster()
                .map_err(|error| invalid(&format!("{no_context}, and this does not run inside a cluster ({error})"))),
        };
    };
    for cluster in files.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
        complete(cluster);
    }
    for exec in files.auth_infos.iter_mut().filter_map(|named| named.auth_info.as_mut()?.exec.as_mut()) {
        // We can then print the plugin's messages, and no plugin waits for input that cannot come.
        if !std::io::IsTerminal::is_terminal(&std::io::stdin()) {
            exec.interactive_mode = Some(ExecInteractiveMode::Never);
        }
    }
    let options = KubeConfigOptions { context: context.map(str::to_owned), ..KubeConfigOptions::default() };
    let proxy = proxy_of(&files, context);
    check_names(&files, context).map_err(|error| invalid(&error))?;
    let config = Config::from_custom_kubeconfig(files, &options).await;
    let mut config = config.map_err(|error| invalid(&format!("the kubeconfig cannot be used: {error}")))?;
    config.proxy_url = match proxy.or_else(|| proxy_of_environment(&config.cluster_url)) {
        Some(proxy) => {
            Some(proxy.parse().map_err(|error| invalid(&format!("{proxy:?} is not a proxy's URL: {error}")))?)
        }
        None => None,
    };
    if let Some(exec) = &config.auth_info.exec {
        check_plugin(exec).await?;
    }
    Ok(config)
}

/// The files of KUBECONFIG, else `~/.kube/config`.
fn paths() -> Vec<PathBuf> {
    match std::env::var_os("KUBECONFIG").filter(|paths| !paths.is_empty()) {
        Some(paths) => std::env::split_paths(&paths).filter(|path| !path.as_os_str().is_empty()).collect(),
        None => std::env::home_dir().map(|home| home.join(".kube/config")).into_iter().collect(),
    }
}

/// Merges the files, and skips those that do not exist.
fn read(paths: &[PathBuf]) -> anyhow::Result<Option<Kubeconfig>> {
    let mut merged: Option<Kubeconfig> = None;
    for path in paths.iter().filter(|path| path.exists()) {
        let found = Kubeconfig::read_from(path)
            .map_err(|error| anyhow::anyhow!("the kubeconfig {} cannot be read: {error}", path.display()))?;
        merged = Some(match merged {
            Some(merged) => merged.merge(found)?,
            None => found,
        });
    }
    Ok(merged)
}

/// A server without a scheme is reached by HTTPS if the kubeconfig mentions certificates, else by HTTP:
/// <https://github.com/kubernetes/client-go/blob/v0.34.0/rest/url_utils.go>
fn complete(cluster: &mut Cluster) {
    let is_tls = cluster.certificate_authority.is_some()
        || cluster.certificate_authority_data.is_some()
        || cluster.insecure_skip_tls_verify == Some(true);
    if let Some(server) = cluster.server.as_mut().filter(|server| !server.contains("://")) {
        *server = format!("{}://{server}", if is_tls { "https" } else { "http" });
    }
}

/// Whether the context leads to a cluster and a user.
fn check_names(files: &Kubeconfig, context: Option<&str>) -> anyhow::Result<()> {
    let name = context.or(files.current_context.as_deref()).unwrap_or_default();
    let context = files.contexts.iter().find(|named| named.name == name).and_then(|named| named.context.as_ref());
    let context = context
        .with_context(|| format!("there is no context {name:?} in the kubeconfig: kubectl config get-contexts"))?;
    let cluster = files.clusters.iter().find(|named| named.name == context.cluster);
    let cluster = cluster.and_then(|named| named.cluster.as_ref());
    let cluster = cluster.with_context(|| {
        format!("context {name:?} of the kubeconfig names cluster {:?}, which it does not have", context.cluster)
    })?;
    if let Some(user) = context.user.as_deref().filter(|user| !user.is_empty()) {
        let is_known = files.auth_infos.iter().any(|named| named.name == user);
        ensure!(is_known, "context {name:?} of the kubeconfig names user {user:?}, which it does not have");
    }
    let server = cluster.server.as_deref().unwrap_or_default();
    let is_url = server.parse::<http::Uri>().is_ok_and(|server| server.host().is_some_and(|host| !host.is_empty()));
    ensure!(is_url, "the server {server:?} of cluster {:?} in the kubeconfig is not a URL", context.cluster);
    Ok(())
}

/// The proxy that the kubeconfig names for the cluster of the context. `NO_PROXY` does not apply to it:
/// <https://github.com/kubernetes/client-go/blob/v0.34.0/tools/clientcmd/client_config.go>
fn proxy_of(files: &Kubeconfig, context: Option<&str>) -> Option<String> {
    let context = context.or(files.current_context.as_deref())?;
    let context = files.contexts.iter().find(|named| named.name == context)?.context.as_ref()?;
    let cluster = files.clusters.iter().find(|named| named.name == context.cluster)?.cluster.as_ref()?;
    cluster.proxy_url.clone().filter(|proxy| !proxy.is_empty())
}

/// The proxy of the environment for `server`, as Go's net/http finds it:
/// <https://github.com/golang/net/blob/v0.44.0/http/httpproxy/proxy.go>
fn proxy_of_environment(server: &http::Uri) -> Option<String> {
    let read = |name: &str| {
        let values = [std::env::var(name), std::env::var(name.to_lowercase())];
        values.into_iter().flatten().find(|value| !value.is_empty())
    };
    let proxy = read(if server.scheme_str() == Some("http") { "HTTP_PROXY" } else { "HTTPS_PROXY" })?;
    let proxy = if proxy.contains("://") { proxy } else { format!("http://{proxy}") };
    let passes = is_direct(server, &read("NO_PROXY").unwrap_or_default());
    (!passes).then_some(proxy)
}

/// Whether `server` is reached without a proxy, as this machine always is.
fn is_direct(server: &http::Uri, no_proxy: &str) -> bool {
    let host = server.host().unwrap_or_default().trim_matches(['[', ']']).to_lowercase();
    let address: Option<IpAddr> = host.parse().ok();
    let port = server.port_u16().unwrap_or(if server.scheme_str() == Some("http") { 80 } else { 443 });
    if host == "localhost" || address.is_some_and(|address| address.is_loopback()) {
        return true;
    }
    no_proxy.split(',').map(|entry| entry.trim().to_lowercase()).filter(|entry| !entry.is_empty()).any(|entry| {
        if entry == "*" {
            return true;
        }
        if let Ok(block) = entry.parse::<ipnet::IpNet>() {
            return address.is_some_and(|address| block.contains(&address));
        }
        let (name, of_port) = match entry.rsplit_once(':') {
            Some((name, digits)) if !name.contains(':') || name.ends_with(']') => (name, digits.parse::<u16>().ok()),
            _ => (entry.as_str(), None),
        };
        if of_port.is_some_and(|of_port| of_port != port) {
            return false;
        }
        if let Ok(entry) = name.trim_matches(['[', ']']).parse::<IpAddr>() {
            return address == Some(entry);
        }
        let name = name.strip_prefix('*').unwrap_or(name);
        match name.strip_prefix('.') {
            Some(_) => host.ends_with(name),
            None => host == name || host.strip_suffix(name).is_some_and(|rest| rest.ends_with('.')),
        }
    })
}

/// Runs a credential plugin once, so that an error names a plugin that is missing, fails or hangs, and quotes its output. The
/// client runs the plugin again when it needs credentials.
async fn check_plugin(exec: &ExecConfig) -> Result<(), Ending> {
    let name = exec.command.as_deref().unwrap_or_default();
    let failed = |why: String| {
        let hint = exec.install_hint.as_deref().map_or_else(String::new, |hint| format!("; {hint}"));
        Ending::new(Reason::CredentialPluginFailed, format!("the kubeconfig's credential plugin {name} {why}{hint}"))
    };
    let is_interactive = exec.interactive_mode != Some(ExecInteractiveMode::Never);
    let mut command = Command::new(name);
    command.args(exec.args.iter().flatten()).kill_on_drop(true);
    for variable in exec.env.iter().flatten() {
        if let (Some(name), Some(value)) = (variable.get("name"), variable.get("value")) {
            command.env(name, value);
        }
    }
    let spec = serde_json::json!({"interactive": is_interactive, "cluster": exec.cluster});
    let info = serde_json::json!({"apiVersion": exec.api_version, "kind": "ExecCredential", "spec": spec});
    command.env("KUBERNETES_EXEC_INFO", info.to_string());
    command.stdin(if is_interactive { Stdio::inherit() } else { Stdio::null() });
    command.stdout(Stdio::piped()).stderr(if is_interactive { Stdio::inherit() } else { Stdio::piped() });
    let limit = PLUGIN_PATIENCE.as_secs();
    let child = command.spawn().map_err(|error| failed(format!("cannot be run: {error}")))?;
    let ended = timeout(PLUGIN_PATIENCE, child.wait_with_output()).await;
    let ended = ended.map_err(|_| failed(format!("gave no credentials within {limit} s")))?;
    let ended = ended.map_err(|error| failed(format!("cannot be run: {error}")))?;
    if ended.status.success() {
        let credential: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap_or_default();
        let is_one = ["token", "clientCertificateData"].iter().any(|key| credential["status"][key].is_string());
        return if is_one { Ok(()) } else { Err(failed("prints no credentials".to_owned())) };
    }
    let words = String::from_utf8_lossy(&ended.stderr);
    let words: Vec<&str> = words.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let how =
        ended.status.code().map_or_else(|| "was ended by a signal".to_owned(), |code| format!("exits with {code}"));
    Err(failed(if words.is_empty() { how } else { format!("{how}: {}", words.join(" ")) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_proxy_is_understood_as_go_understands_it() {
        for (server, no_proxy, direct) in [
            ("https://a.example.com", "", false),
            ("https://localhost:6443", "", true),
            ("https://127.0.0.1:6443", "", true),
            ("https://[::1]:6443", "", true),
            ("https://a.example.com", "*", true),
            ("https://a.example.com", "example.com", true),
            ("https://example.com", "example.com", true),
            ("https://badexample.com", "example.com", false),
            ("https://a.example.com", ".example.com,", true),
            ("https://example.com", ".example.com", false),
            ("https://a.example.com", " other , *.example.com ", true),
            ("https://a.example.com:6443", "example.com:6443", true),
            ("https://a.example.com:6443", "example.com:443", false),
            ("https://10.1.2.3", "10.0.0.0/8", true),
            ("https://11.1.2.3", "10.0.0.0/8", false),
            ("https://10.1.2.3:6443", "10.1.2.3", true),
            ("https://[fd00::1]:6443", "fd00::/8", true),
            ("https://[fd00::1]:6443", "fd00::1", true),
        ] {
            assert_eq!(is_direct(&server.parse().unwrap(), no_proxy), direct, "{server} {no_proxy:?}");
        }
    }

    #[test]
    fn a_server_without_a_scheme_gets_the_one_that_kubectl_gives_it() {
        for (authority, server) in [(None, "http://a:1"), (Some("ca.crt".to_owned()), "https://a:1")] {
            let mut cluster =
                Cluster { server: Some("a:1".to_owned()), certificate_authority: authority, ..Cluster::default() };
            complete(&mut cluster);
            assert_eq!(cluster.server.as_deref(), Some(server));
        }
    }
}
