//! Ranks on several hosts: network namespaces of this machine, with links that are slow, lose
//! packets, and are cut; and two nodes of a Slurm that `scripts/test-cluster` starts. Both need root.

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::common::{Disturbed, command, scratch, weights};

const HOSTS: usize = 3;

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().unwrap();
    assert!(status.success(), "ip {words}");
}

/// Three hosts on one switch.
struct Network;

impl Network {
    fn new() -> Network {
        Network::remove();
        ip("link add ferrata-switch type bridge");
        ip("link set ferrata-switch up");
        for host in 0..HOSTS {
            ip(&format!("netns add ferrata-{host}"));
            ip(&format!(
                "link add ferrata-port{host} type veth peer name eth0 netns ferrata-{host}"
            ));
            ip(&format!("link set ferrata-port{host} master ferrata-switch up"));
            ip(&format!("-n ferrata-{host} addr add 10.77.0.{}/24 dev eth0", host + 1));
            ip(&format!("-n ferrata-{host} link set eth0 up"));
            ip(&format!("-n ferrata-{host} link set lo up"));
        }
        Network
    }

    fn remove() {
        // Whatever there is of it.
        let quietly = |words: &str| {
            let _ = Command::new("ip").args(words.split(' ')).output();
        };
        (0..HOSTS).for_each(|host| quietly(&format!("netns del ferrata-{host}")));
        quietly("link del ferrata-switch");
    }

    /// A command, as it runs on a host of its own name.
    fn on(host: usize, command: &Command) -> Command {
        let mut outer = Command::new("ip");
        let name = format!("hostname host{host}; exec \"$@\"");
        outer.args(["netns", "exec", &format!("ferrata-{host}"), "unshare", "--uts"]);
        outer.args(["sh", "-c", &name, "sh"]).arg(command.get_program()).args(command.get_args());
        outer.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
        outer
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        Network::remove();
    }
}

/// A rank on each host, started again whenever it fails, as Kubernetes would.
fn ranks(out: &Path) -> Vec<Child> {
    let rank = |rank: usize| {
        let mut again = Command::new("sh");
        again.args(["-c", "until \"$@\" 2>/dev/null; do sleep 0.5; done", "sh"]);
        let inner = command("rank", out, HOSTS, &["resume"]);
        again.arg(inner.get_program()).args(inner.get_args());
        let mut outer = Network::on(rank, &again);
        outer
            .env("FERRATA_SUPERVISOR", "10.77.0.1:29400")
            .env("FERRATA_JOB", "secret")
            .env("FERRATA_RANKS", HOSTS.to_string())
            .env("FERRATA_RANK", rank.to_string())
            .stdout(std::process::Stdio::null());
        outer.spawn().unwrap()
    };
    (0..HOSTS).map(rank).collect()
}

#[test]
#[ignore = "needs root and network namespaces"]
fn a_cut_link_is_noticed_and_the_job_goes_on() {
    let folder = scratch("hosts");
    let (whole, out) = (folder.join("whole"), folder.join("out"));
    Disturbed::start(&whole, HOSTS, &[]).finish();
    let _network = Network::new();
    // 400 Mbit/s, and 2 packets of 1000 are lost on the way to the last host.
    let last = HOSTS - 1;
    let shell =
        |line: &str| assert!(Command::new("sh").args(["-c", line]).status().unwrap().success());
    shell("tc qdisc add dev ferrata-port1 root tbf rate 400mbit burst 64kb latency 50ms");
    shell(&format!(
        "ip netns exec ferrata-{last} nft -f - <<'.'
table ip lossy {{
    chain in {{
        type filter hook input priority 0;
        numgen random mod 1000 < 2 drop
    }}
}}
."
    ));
    let supervisor = command("supervisor", &out, HOSTS, &["with=none", "listen=10.77.0.1:29400"]);
    let mut supervisor = Network::on(0, &supervisor);
    let mut job = Disturbed::from(supervisor.env("FERRATA_JOB", "secret"));
    let children = ranks(&out);
    job.await_line("launch: 3 ranks on 3 hosts");
    // Ranks print elsewhere: their progress is seen by the checkpoint.
    while !out.join("checkpoint").exists() {
        std::thread::sleep(Duration::from_millis(20));
    }
    ip(&format!("link set ferrata-port{last} down"));
    let start = Instant::now();
    let line = job.await_line("launch: rank");
    let noticed = start.elapsed();
    println!("a cut link was noticed after {noticed:.2?}: {line}");
    assert!(noticed < Duration::from_secs(10), "{noticed:?}");
    assert!(line.contains(&format!("rank {last} cpu host{last} has said nothing")), "{line}");
    ip(&format!("link set ferrata-port{last} up"));
    job.finish();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert!(weights(&whole) == weights(&out));
}

#[test]
#[ignore = "needs an allocation of Slurm"]
fn a_job_of_slurm_survives_the_death_of_a_rank() {
    let folder = scratch("slurm");
    let (whole, out) = (folder.join("whole"), folder.join("out"));
    Disturbed::start(&whole, 4, &[]).finish();
    let mut job = Disturbed::start(&out, 4, &["with=srun", "pass=--overlap,--nodes=2"]);
    job.await_line("launch: 4 ranks on");
    let pid = job.pid(2);
    job.await_step(20);
    let status = Command::new("kill").args(["-KILL", &pid.to_string()]).status();
    let start = Instant::now();
    assert!(status.unwrap().success());
    let line = job.await_line("launch: rank");
    println!("a killed rank was noticed after {:.2?}: {line}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(line.contains("rank 2 cpu"), "{line}");
    job.finish();
    assert!(weights(&whole) == weights(&out));
}
