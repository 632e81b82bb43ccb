//! Finds the route and the component of a path by Spin's rules, with the crate that Spin uses.

use anyhow::{anyhow, ensure};
use routefinder::{Captures, RouteSpec, Router};

/// The path below which Spin itself answers.
pub(crate) const WELL_KNOWN: &str = "/.well-known/spin/";

/// The routes of an application.
pub(crate) struct Routes(Router<Route>);

/// One route.
pub(crate) struct Route {
    /// As the manifest writes it: `spin-raw-component-route`.
    pub(crate) raw: String,
    /// Below the base path, which is always `/`: `spin-matched-route`.
    pub(crate) based: String,
    /// The id of the component that it leads to.
    pub(crate) component: String,
}

/// The route of a path.
pub(crate) struct Match<'a> {
    pub(crate) route: &'a Route,
    /// The part of the path that a trailing `/...` matched: `spin-path-info`. Empty for other routes.
    pub(crate) path_info: String,
    /// The part of the path that each `:name` matched: `spin-path-match-<name>`.
    pub(crate) parameters: Vec<(String, String)>,
}

impl Routes {
    /// Takes routes as the manifest writes them, each with the component that it leads to.
    ///
    /// # Errors
    /// When a route is malformed, occurs twice, or is below the path where Spin itself answers.
    pub(crate) fn new(routes: impl IntoIterator<Item = (String, String)>) -> anyhow::Result<Self> {
        let mut built = Router::new();
        for (raw, component) in routes {
            let absolute = if raw.starts_with('/') { raw.clone() } else { format!("/{raw}") };
            let based = absolute.strip_suffix('/').unwrap_or(&absolute).to_owned();
            ensure!(
                !based.starts_with(WELL_KNOWN),
                "route `{raw}` would never be reached: Spin itself answers below {WELL_KNOWN}"
            );
            let spec = match based.strip_suffix("/...") {
                Some(prefix) => format!("{prefix}/*"),
                None => based.clone(),
            };
            let spec: RouteSpec = spec.parse().map_err(|reason| anyhow!("bad route `{raw}`: {reason}"))?;
            ensure!(
                built.iter().all(|(other, _)| RouteSpec::segments(other) != spec.segments()),
                "route `{raw}` appears twice in the manifest"
            );
            let route = Route { raw, based, component };
            built.add(spec, route)?;
        }
        Ok(Self(built))
    }

    /// The best route for a path: an exact one before one with wildcards, a longer before a shorter.
    pub(crate) fn find(&self, path: &str) -> Option<Match<'_>> {
        let found = self.0.best_match(path)?;
        let captures = found.captures();
        let parameters = captures.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        Some(Match { route: found.handler(), path_info: path_info(&captures, path), parameters: parameters.collect() })
    }

    /// Every route, in the order in which they are tried.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Route> {
        self.0.iter().map(|(_, route)| route)
    }
}

/// Adds the slashes at both ends, which the wildcard's capture lacks.
fn path_info(captures: &Captures, path: &str) -> String {
    let Some(rest) = captures.wildcard() else {
        return String::new();
    };
    let leading = if rest.is_empty() { "" } else { "/" };
    let trailing = if path.ends_with('/') { "/" } else { "" };
    format!("{leading}{rest}{trailing}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(raw: &[&str]) -> anyhow::Result<Routes> {
        Routes::new(raw.iter().map(|raw| ((*raw).to_owned(), "web".to_owned())))
    }

    #[test]
    fn the_best_route_is_chosen_and_its_wildcards_are_known() {
        let all = ["/...", "/", "/a", "/a/...", "/a/b/...", "/file.txt", "relative", "/u/:id/x"];
        let all = routes(&all).unwrap();
        let cases = [
            // path, route, path info
            ("/", "/", ""),
            ("/x", "/...", "/x"),
            ("/x/", "/...", "/x/"),
            ("/x//y", "/...", "/x//y"),
            ("//x", "/...", "/x"),
            ("*", "/...", "/*"),
            ("/a", "/a", ""),
            ("/a/", "/a", ""),
            ("/ab", "/...", "/ab"),
            ("/a/c", "/a/...", "/c"),
            ("/a/b", "/a/b/...", ""),
            ("/a/b/", "/a/b/...", "/"),
            ("/a/b/c/d/", "/a/b/...", "/c/d/"),
            ("/file.txt", "/file.txt", ""),
            ("/file-txt", "/...", "/file-txt"),
            ("/%61", "/...", "/%61"),
            ("/relative", "relative", ""),
            ("/u/7/x", "/u/:id/x", ""),
        ];
        for (path, expected, path_info) in cases {
            let found = all.find(path).unwrap();
            assert_eq!((&*found.route.raw, &*found.path_info), (expected, path_info), "{path}");
        }
        let parameters = all.find("/u/7/x").unwrap().parameters;
        assert_eq!(parameters, [("id".to_owned(), "7".to_owned())]);
    }

    #[test]
    fn a_path_without_a_route_is_not_found() {
        let some = routes(&["/a", "/b/..."]).unwrap();
        for path in ["/", "/aa", "/a/b", "/A", "/bb", ""] {
            assert!(some.find(path).is_none(), "{path}");
        }
    }

    #[test]
    fn a_route_that_must_be_a_mistake_is_refused() {
        let cases = [
            (&["/a/:"][..], "bad route `/a/:`: params must be named"),
            (&["/a", "/a"], "route `/a` appears twice in the manifest"),
            (&["/a/...", "a/*"], "route `a/*` appears twice in the manifest"),
            (&["/.well-known/spin/health"], "would never be reached"),
        ];
        for (raw, expected) in cases {
            let error = routes(raw).err().unwrap().to_string();
            assert!(error.contains(expected), "{raw:?}: {error}");
        }
    }
}
