//! What e2e/cluster.sh promises: a cluster that has ended leaves nothing behind.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::bed::{await_some, await_true, root, run};

/// Starts another cluster inside this one, and ends it from outside.
pub(crate) fn a_cluster_that_is_ended_leaves_nothing_behind() {
    for signal in ["INT", "TERM", "KILL"] {
        // A shell makes its background commands ignore SIGINT, and they cannot change that later.
        let mut cluster = Command::new("env")
            .arg("--default-signal=INT")
            .arg(root().join("e2e/cluster.sh"))
            .args(["run", "sh", "-c", "echo $RUN; exec sleep infinity"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("env can be run");
        let mut directory = String::new();
        let stdout = cluster.stdout.take().expect("stdout is a pipe");
        BufReader::new(stdout).read_line(&mut directory).expect("stdout can be read");
        let directory = Path::new(directory.trim());
        assert!(directory.is_dir(), "the cluster did not come up");
        assert_ne!((processes(directory), cgroups(directory)), (0, 0));

        run(Command::new("kill").args([&format!("-{signal}"), &cluster.id().to_string()]));
        let ended = || cluster.try_wait().expect("the cluster is a child of this process");
        await_some(&format!("the cluster ends after SIG{signal}"), Duration::from_mins(1), ended);
        await_true(&format!("nothing is left after SIG{signal}"), Duration::from_secs(15), || {
            !directory.exists() && processes(directory) == 0 && cgroups(directory) == 0
        });
    }
}

/// The processes of the cluster in this directory, which they have in their environment.
fn processes(cluster: &Path) -> usize {
    let variable = format!("RUN={}\0", cluster.display());
    let environments = fs::read_dir("/proc").expect("proc is mounted").flatten();
    let environments = environments.filter_map(|process| fs::read(process.path().join("environ")).ok());
    environments.filter(|environment| String::from_utf8_lossy(environment).contains(&variable)).count()
}

/// The control groups of the cluster: one in each hierarchy of version 1, or one in version 2.
fn cgroups(cluster: &Path) -> usize {
    let name = cluster.file_name().expect("the cluster's directory has a name");
    let hierarchies = fs::read_dir("/sys/fs/cgroup").expect("cgroups are mounted").flatten();
    let places = hierarchies.map(|hierarchy| hierarchy.path()).chain([Path::new("/sys/fs/cgroup").to_owned()]);
    places.filter(|place| place.join(name).is_dir()).count()
}
