//! The variables that the guest gets.

use crate::host::{Application, everything_to_the_guest};

const VARIABLES: &str = r#"
[component.guest.variables]
renamed = "{{ plain }}"
joined = "<{{ plain }}|{{ secret_2 }}>"
constant = "no template"
needed = "{{ needed }}"

[variables]
plain = { default = "by default" }
secret_2 = { default = "hidden", secret = true }
needed = { required = true }
unmapped = { default = "of the application alone" }
"#;

#[test]
fn the_environment_overrides_the_default_and_the_component_sees_only_its_own_names() {
    let application = || Application::new(&(everything_to_the_guest() + VARIABLES));
    let by_default = application().environment("SPIN_VARIABLE_NEEDED", "n").serve();
    let set = application()
        .environment("SPIN_VARIABLE_NEEDED", "n")
        .environment("SPIN_VARIABLE_PLAIN", "set {{ needed }}")
        .environment("SPIN_VARIABLE_SECRET_2", "")
        .environment("SPIN_VARIABLE_CONSTANT", "not a variable of the application")
        .serve();
    let cases = [
        ("renamed", Ok("by default"), Ok("set {{ needed }}")),
        ("joined", Ok("<by default|hidden>"), Ok("<set {{ needed }}|>")),
        ("constant", Ok("no template"), Ok("no template")),
        ("needed", Ok("n"), Ok("n")),
        ("plain", Err("Undefined"), Err("Undefined")),
        ("unmapped", Err("Undefined"), Err("Undefined")),
        ("unknown", Err("Undefined"), Err("Undefined")),
        ("Not-a-name", Err("InvalidName"), Err("InvalidName")),
    ];
    for (name, without, with) in cases {
        for (host, expected) in [(&by_default, without), (&set, with)] {
            let answer = host.get(&format!("/variable?{name}"));
            match expected {
                Ok(value) => assert_eq!(answer.text(), format!("Ok({value:?})"), "{name}"),
                Err(kind) => {
                    assert!(answer.text().starts_with(&format!("Err(Error::{kind}(")), "{name}: {}", answer.text());
                }
            }
        }
    }
}

#[test]
fn the_guest_gets_only_the_environment_of_the_manifest() {
    let environment = "[component.guest.environment]\nCOLOUR = \"red\"\n";
    let host =
        Application::new(&(everything_to_the_guest() + environment)).environment("LEAKED", "from the host").serve();
    assert_eq!(host.get("/environment").text(), "COLOUR=red\n");
}
