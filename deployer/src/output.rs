//! What a run tells: lines on stderr while it goes on, the verdict last, and with `-o json` one document on stdout.

use std::cell::RefCell;
use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use crate::outcome::{Ending, Outcome};
use crate::template::short;

/// What goes to stdout at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Nothing; stderr says it all.
    #[default]
    Text,
    /// One JSON document, whatever the exit code.
    Json,
}

/// The document that `-o json` prints. What is not known, or does not apply, is null.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    /// The word of the verdict's first line.
    pub(crate) outcome: String,
    /// The exit code.
    pub(crate) exit_code: u8,
    /// The rest of the verdict's first line.
    pub(crate) cause: Option<String>,
    /// The commit in question, 40 digits.
    pub(crate) commit: Option<String>,
    /// The image in question.
    pub(crate) image: Option<String>,
    /// The namespace.
    pub(crate) namespace: Option<String>,
    /// The Deployment's name.
    pub(crate) deployment: Option<String>,
    /// The commit that ran before, 40 digits.
    pub(crate) previous_commit: Option<String>,
    /// Seconds from the apply until every wanted pod of the new revision was available.
    pub(crate) serving_after_s: Option<f64>,
    /// Seconds from the apply until the last old pod was gone.
    pub(crate) replaced_after_s: Option<f64>,
    /// The pods at the end.
    pub(crate) pods: Vec<PodReport>,
    /// What was not as it should be and did not decide the outcome.
    pub(crate) warnings: Vec<String>,
    /// What shows that the cause is the cause.
    pub(crate) evidence: Vec<String>,
    /// What came of going back, if that was tried.
    pub(crate) rollback: Option<RollbackReport>,

    /// Whether anything was sent that changes the cluster.
    #[serde(skip)]
    pub(crate) changed: bool,
    /// What serves now, for the verdict.
    #[serde(skip)]
    pub(crate) serves_now: Option<String>,
    /// Commands to copy, each after the word that says what for.
    #[serde(skip)]
    pub(crate) commands: Vec<(&'static str, String)>,
}

/// One pod of the Deployment.
#[derive(Debug, Serialize)]
pub(crate) struct PodReport {
    /// Its name.
    pub(crate) name: String,
    /// The node that it was put on.
    pub(crate) node: Option<String>,
    /// Whether it is sent requests.
    pub(crate) ready: bool,
    /// What it answered on /version, else what its annotation says.
    pub(crate) commit: Option<String>,
}

/// What came of going back to the revision before.
#[derive(Debug, Serialize)]
pub(crate) struct RollbackReport {
    /// `done`, `failed`, or `none` where there is no earlier revision.
    pub(crate) outcome: &'static str,
    /// The commit that was gone back to.
    pub(crate) commit: Option<String>,
    /// Why it failed.
    pub(crate) cause: Option<String>,
}

/// Tells a person, line by line, and remembers what the document at the end says.
pub(crate) struct Output {
    started: Instant,
    format: Format,
    spinner: Option<ProgressBar>,
    report: RefCell<Report>,
}

impl Output {
    /// Starts the clock of the lines to come.
    pub(crate) fn new(format: Format) -> Self {
        Self {
            started: Instant::now(),
            format,
            spinner: std::io::stderr().is_terminal().then(spinner),
            report: RefCell::default(),
        }
    }

    /// A line that stays: something happened.
    pub(crate) fn say(&self, text: &str) {
        let elapsed = format!("+{:.1}s", self.started.elapsed().as_secs_f64());
        self.line(&format!("{} {elapsed:>7}  {text}", Timestamp::now().strftime("%H:%M:%SZ")));
    }

    /// A line that stays, and a sentence for the document.
    pub(crate) fn warn(&self, text: &str) {
        self.say(&format!("warning: {text}"));
        self.record(|report| report.warnings.push(clean(text)));
    }

    /// On a terminal, what is waited for at this moment; nothing elsewhere.
    pub(crate) fn show(&self, text: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.set_message(clean(text));
        }
    }

    /// Notes something for the document and the verdict.
    pub(crate) fn record(&self, note: impl FnOnce(&mut Report)) {
        note(&mut self.report.borrow_mut());
    }

    /// Reads what was noted.
    pub(crate) fn noted<T>(&self, read: impl FnOnce(&Report) -> T) -> T {
        read(&self.report.borrow())
    }

    /// Writes the verdict and the document. Returns the exit code.
    pub(crate) fn finish(self, ending: &Ending) -> u8 {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
        let cause = clean(&ending.cause);
        let mut report = self.report.take();
        self.line(&format!("{}: {cause}", ending.outcome));
        if let Some(serves) = &report.serves_now {
            self.row("serves now", serves);
        }
        if ending.outcome != Outcome::Done {
            for evidence in &report.evidence {
                self.row("evidence", evidence);
            }
        }
        if let Some(rollback) = &report.rollback {
            self.row("rollback", &rollback.sentence());
        }
        for (what_for, command) in &report.commands {
            self.row(what_for, command);
        }
        report.outcome = ending.outcome.to_string();
        report.exit_code = ending.outcome.exit_code();
        report.cause = Some(cause);
        if self.format == Format::Json {
            print_document(&report);
        }
        report.exit_code
    }

    fn row(&self, label: &str, text: &str) {
        self.line(&format!("  {label:<10}  {text}"));
    }

    fn line(&self, text: &str) {
        let text = clean(text);
        let write = || drop(writeln!(std::io::stderr(), "{text}")); // a log that is gone stops no rollout
        match &self.spinner {
            Some(spinner) => spinner.suspend(write),
            None => write(),
        }
    }
}

impl RollbackReport {
    fn sentence(&self) -> String {
        let commit = self.commit.as_deref().map_or("the revision before", short);
        match (self.outcome, &self.cause) {
            ("done", _) => format!("rolled back to {commit}"),
            (_, Some(cause)) => cause.clone(),
            (outcome, None) => format!("{outcome}: {commit}"),
        }
    }
}

/// Writes the one document of a run that ended before there was an [`Output`].
pub(crate) fn print_usage_error(cause: &str) {
    let report = Report {
        outcome: Outcome::Invalid.to_string(),
        exit_code: Outcome::Invalid.exit_code(),
        cause: Some(clean(cause)),
        ..Report::default()
    };
    print_document(&report);
}

fn print_document(report: &Report) {
    if let Ok(document) = serde_json::to_string_pretty(report) {
        drop(writeln!(std::io::stdout(), "{document}"));
    }
}

fn spinner() -> ProgressBar {
    let bar = ProgressBar::new_spinner().with_style(
        ProgressStyle::with_template("{spinner} {elapsed} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()),
    );
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// Seconds with one decimal, as the document and the verdict give them.
pub(crate) fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}

/// One line that drives no terminal, whatever a pod, a registry or an admission webhook wrote: control characters
/// and those that turn the direction of text become visible.
pub(crate) fn clean(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.trim_end().chars() {
        match c {
            '\n' | '\t' => line.push(' '),
            '\r' => {}
            c if c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                line.extend(c.escape_unicode());
            }
            c => line.push(c),
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_the_cluster_wrote_can_forge_a_line_or_drive_a_terminal() {
        for (written, shown) in [
            ("plain", "plain"),
            ("two\nlines\r\n", "two lines"),
            ("a\ttab", "a tab"),
            ("\u{1b}[31mred\u{7}", "\\u{1b}[31mred\\u{7}"),
            ("\u{9b}2J", "\\u{9b}2J"),
            ("\u{202e}gnp.exe", "\\u{202e}gnp.exe"),
            ("ärger, 漢字", "ärger, 漢字"),
        ] {
            assert_eq!(clean(written), shown);
        }
    }
}
