//! Variables: those that the manifest declares, their values from the environment, and those that a component gets.

use std::collections::BTreeMap;
use std::env::VarError;

use anyhow::{Context as _, anyhow, bail};

use crate::manifest::Variable;

/// Values by name.
pub(crate) type Values = BTreeMap<String, String>;

/// The values of the application's variables: the environment's `SPIN_VARIABLE_<NAME>`, else the default.
///
/// # Errors
/// When a name is malformed, a required variable is not set, or the environment's value is not Unicode.
pub(crate) fn of_application(
    declared: &BTreeMap<String, Variable>,
    environment: impl Fn(&str) -> Result<String, VarError>,
) -> anyhow::Result<Values> {
    let mut values = Values::new();
    for (name, variable) in declared {
        check_name(name).map_err(|reason| anyhow!("bad variable name `{name}`: {reason}"))?;
        if variable.required == variable.default.is_some() {
            bail!("bad variable `{name}`: give it either a default or `required = true`");
        }
        let key = format!("SPIN_VARIABLE_{}", name.to_ascii_uppercase());
        let value = match environment(&key) {
            Ok(value) => value,
            Err(VarError::NotPresent) => variable
                .default
                .clone()
                .ok_or_else(|| anyhow!("variable `{name}` is required: set {key} in the environment"))?,
            Err(VarError::NotUnicode(_)) => {
                bail!("bad value of variable `{name}`: {key} in the environment is not UTF-8")
            }
        };
        values.insert(name.clone(), value);
    }
    Ok(values)
}

/// The values that one component gets: its templates, filled in with the application's values.
///
/// # Errors
/// When a name or a template is malformed, or a template names a variable that the application does not have.
pub(crate) fn of_component(templates: &BTreeMap<String, String>, application: &Values) -> anyhow::Result<Values> {
    let fill = |(name, template): (&String, &String)| {
        check_name(name).map_err(|reason| anyhow!("bad variable name `{name}`: {reason}"))?;
        let value = expand(template, application)
            .with_context(|| format!("bad template of variable `{name}`, `{template}`"))?;
        Ok((name.clone(), value))
    };
    templates.iter().map(fill).collect()
}

/// Replaces each `{{ name }}` with the value of that name.
fn expand(template: &str, values: &Values) -> anyhow::Result<String> {
    let mut expanded = String::new();
    let mut rest = template;
    while let Some((literal, expression)) = rest.split_once("{{") {
        let (name, after) = expression.split_once("}}").context("`{{` without `}}`")?;
        let name = name.trim();
        let value =
            values.get(name).with_context(|| format!("there is no variable `{name}`: declare it under [variables]"))?;
        expanded.push_str(literal);
        expanded.push_str(value);
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

/// Accepts the names that Spin accepts, for a variable of the application or of a component.
///
/// # Errors
/// Why the name is refused.
pub(crate) fn check_name(name: &str) -> Result<(), &'static str> {
    if !name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_')) {
        Err("a name has only lower-case letters, digits and underscores")
    } else if !name.starts_with(|first: char| first.is_ascii_lowercase()) {
        Err("a name begins with a letter")
    } else if name.ends_with('_') || name.contains("__") {
        Err("an underscore stands between two other characters")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "the cases read better")]
    fn value(declaration: &str, set: Result<&str, VarError>) -> Result<String, String> {
        let declared: Variable = toml::from_str(declaration).unwrap();
        let environment = |key: &str| {
            assert_eq!(key, "SPIN_VARIABLE_A_1");
            set.clone().map(str::to_owned)
        };
        of_application(&BTreeMap::from([("a_1".to_owned(), declared)]), environment)
            .map(|mut values| values.remove("a_1").unwrap())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_environment_overrides_the_default() {
        let unset = Err(VarError::NotPresent);
        assert_eq!(value("default = 'd'", Ok("e")), Ok("e".to_owned()));
        assert_eq!(value("required = true", Ok("e")), Ok("e".to_owned()));
        assert_eq!(value("default = 'd'", unset), Ok("d".to_owned()));
    }

    #[test]
    fn a_variable_that_cannot_have_a_value_is_refused() {
        let cases = [
            (
                "required = true",
                Err(VarError::NotPresent),
                "variable `a_1` is required: set SPIN_VARIABLE_A_1 in the environment",
            ),
            ("secret = true", Ok("e"), "bad variable `a_1`: give it either a default or `required = true`"),
            (
                "required = true\ndefault = 'd'",
                Ok("e"),
                "bad variable `a_1`: give it either a default or `required = true`",
            ),
            (
                "default = 'd'",
                Err(VarError::NotUnicode("?".into())),
                "bad value of variable `a_1`: SPIN_VARIABLE_A_1 in the environment is not UTF-8",
            ),
        ];
        for (declaration, set, expected) in cases {
            assert_eq!(value(declaration, set), Err(expected.to_owned()), "{declaration}");
        }
    }

    #[test]
    fn templates() {
        let values =
            Values::from([("a", "1"), ("b", "{{ a }}")].map(|(name, value)| (name.to_owned(), value.to_owned())));
        let cases = [
            ("", Ok("")),
            ("plain", Ok("plain")),
            ("{{ a }}", Ok("1")),
            ("{{a}}", Ok("1")),
            ("x{{ a }}y{{ a }}z", Ok("x1y1z")),
            ("{{ b }}", Ok("{{ a }}")), // a value is not a template
            ("a } b }} c { d", Ok("a } b }} c { d")),
            ("{{ a", Err("`{{` without `}}`")),
            ("{{ A }}", Err("there is no variable `A`: declare it under [variables]")),
            ("{{ }}", Err("there is no variable ``: declare it under [variables]")),
        ];
        for (template, expected) in cases {
            let actual = expand(template, &values).map_err(|error| error.to_string());
            assert_eq!(actual.as_deref().map_err(String::as_str), expected, "{template}");
        }
    }

    #[test]
    fn names() {
        for good in ["a", "abc", "a1b2", "a_1", "a_1_b"] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", "A", "1a", "_a", "a_", "a__b", "a-b", "a.b", "ä"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }
}
