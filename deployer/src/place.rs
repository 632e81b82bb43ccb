//! A namespace and the context of the kubeconfig that leads to it, and commands for it that run as printed.

/// A namespace of a cluster.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The context of the kubeconfig, if one was given.
    pub(crate) context: Option<String>,
    pub(crate) namespace: String,
}

impl Place {
    /// `kubectl …` for this namespace, to copy.
    pub(crate) fn kubectl(&self, arguments: &str) -> String {
        let context = self.option();
        format!("kubectl{context} -n {} {arguments}", self.namespace)
    }

    /// `deployer COMMAND … NAME` for this namespace, to copy.
    pub(crate) fn deployer(&self, command: &str, name: &str) -> String {
        let context = self.option();
        format!("deployer {command}{context} -n {} {name}", self.namespace)
    }

    fn option(&self) -> String {
        self.context.as_ref().map_or_else(String::new, |context| format!(" --context {}", quoted(context)))
    }
}

/// One word of a shell.
fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+=".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_names_its_context_as_one_word() {
        for (context, command) in [
            (None, "kubectl -n web get pods"),
            (
                Some("arn:aws:eks:eu-west-1:1:cluster/a"),
                "kubectl --context arn:aws:eks:eu-west-1:1:cluster/a -n web get pods",
            ),
            (Some("Ann's cluster"), r"kubectl --context 'Ann'\''s cluster' -n web get pods"),
        ] {
            let place = Place { context: context.map(str::to_owned), namespace: "web".to_owned() };
            assert_eq!(place.kubectl("get pods"), command);
        }
    }
}
