//! Job scripts and manifests for the schedulers of clusters.

use std::fmt::Write;

/// Seconds before the end of its time at which Slurm tells a job to save.
const WARNING: u32 = 300;
/// Where the launcher listens in a cluster of Kubernetes.
const PORT: u16 = 29400;

/// What a job needs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shape {
    /// Its name: lower case letters, digits and `-`.
    pub name: String,
    /// How many ranks it has.
    pub ranks: usize,
    /// How many of them share a node.
    pub ranks_per_node: usize,
    /// Cores of each rank.
    pub cores: Option<usize>,
    /// Memory of each rank, as the scheduler writes it: `64G`, `64Gi`.
    pub memory: Option<String>,
    /// Slurm: how long it may run, `HH:MM:SS` or `DAYS-HH:MM:SS`.
    pub time: Option<String>,
    /// Kubernetes: the container image, with `ferrata` as its entry point.
    pub image: Option<String>,
}

/// A script for `sbatch`: it starts `ferrata launch` with `command` (such as `train recipe.toml`),
/// saves and queues itself again before its time is over, and continues when it is started again.
pub fn slurm(shape: &Shape, command: &[String]) -> String {
    let mut script = String::from("#!/bin/bash\n");
    let mut option = |name: &str, value: &str| {
        let _ = writeln!(script, "#SBATCH --{name}{value}");
    };
    let nodes = shape.ranks.div_ceil(shape.ranks_per_node.max(1));
    option("job-name=", &shape.name);
    option("nodes=", &nodes.to_string());
    option("ntasks=", &shape.ranks.to_string());
    option("ntasks-per-node=", &shape.ranks_per_node.to_string());
    let cores = shape.cores.map(|cores| cores.to_string());
    if let Some(cores) = &cores {
        option("cpus-per-task=", cores);
    }
    if let Some(memory) = &shape.memory {
        option("mem-per-cpu=", &per_core(memory, shape.cores.unwrap_or(1)));
    }
    if let Some(time) = &shape.time {
        option("time=", time);
    }
    option("requeue", "");
    option("open-mode=append", "");
    option("output=", &format!("{}-%j.log", shape.name));
    option("signal=B:USR1@", &WARNING.to_string());
    script += "# The launcher takes the place of this shell, and with it the signal.\n";
    let _ = write!(script, "exec ferrata launch --with srun --requeue --ranks {}", shape.ranks);
    if let Some(cores) = &cores {
        // srun does not take it over from the job.
        let _ = write!(script, " --pass=--cpus-per-task={cores}");
    }
    script += " --";
    for word in resumed(command) {
        script.push(' ');
        script += &quoted(word);
    }
    script.push('\n');
    script
}

/// A JobSet for Kubernetes: a launcher, which watches, and the ranks, which come to it and are
/// started again by Kubernetes. `secret` keeps others out of the job.
pub fn kubernetes(shape: &Shape, command: &[String], secret: &str) -> String {
    let Shape { name, ranks, .. } = shape;
    let image = shape.image.as_deref().unwrap_or("ferrata");
    let list = |words: &[&str]| {
        let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
        format!("[{}]", words.join(", "))
    };
    let host = format!("{name}-launcher-0-0.{name}");
    let (count, listen) = (ranks.to_string(), format!("{host}:{PORT}"));
    let mut launch = vec!["launch", "--with", "none", "--ranks", &count, "--listen", &listen, "--"];
    let command: Vec<&str> = resumed(command).collect();
    launch.extend(&command);
    let mut limits = String::new();
    for (resource, value) in
        [("cpu", shape.cores.map(|cores| cores.to_string())), ("memory", shape.memory.clone())]
    {
        if let Some(value) = value {
            let _ = write!(limits, "\n                    {resource}: {value:?}");
        }
    }
    let resources = match limits.is_empty() {
        true => String::new(),
        false => format!("\n                resources:\n                  limits:{limits}"),
    };
    let (launch, arguments) = (list(&launch), list(&command));
    let backoff = 1000 * ranks;
    format!(
        "\
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: {name}
spec:
  network:
    enableDNSHostnames: true
    subdomain: {name}
  successPolicy:
    operator: All
    targetReplicatedJobs: [launcher]
  failurePolicy:
    maxRestarts: 10
  replicatedJobs:
    - name: launcher
      replicas: 1
      template:
        spec:
          parallelism: 1
          completions: 1
          backoffLimit: 0
          template:
            spec:
              restartPolicy: Never
              containers:
              - name: launcher
                image: {image:?}
                args: {launch}
                ports:
                - containerPort: {PORT}
                env:
                - {{name: FERRATA_JOB, value: {secret:?}}}
    - name: ranks
      replicas: 1
      template:
        spec:
          completionMode: Indexed
          parallelism: {ranks}
          completions: {ranks}
          backoffLimit: {backoff}
          template:
            spec:
              restartPolicy: OnFailure
              containers:
              - name: rank
                image: {image:?}
                args: {arguments}
                env:
                - {{name: FERRATA_SUPERVISOR, value: {listen:?}}}
                - {{name: FERRATA_RANKS, value: {count:?}}}
                - {{name: FERRATA_JOB, value: {secret:?}}}{resources}
"
    )
}

/// A command that continues when it is started again.
fn resumed(command: &[String]) -> impl Iterator<Item = &str> {
    let resume = (!command.iter().any(|word| word == "--resume")).then_some("--resume");
    command.iter().map(String::as_str).chain(resume)
}

/// The memory of a rank, shared out to its cores: Slurm knows no memory of a task.
fn per_core(memory: &str, cores: usize) -> String {
    let digits = memory.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = &memory[digits.len()..];
    match (digits.parse::<u64>(), unit) {
        (Ok(count), "T" | "G") => {
            let smaller = if unit == "T" { 'G' } else { 'M' };
            format!("{}{smaller}", (count * 1024).div_ceil(cores as u64))
        }
        (Ok(count), _) => format!("{}{unit}", count.div_ceil(cores as u64)),
        (Err(_), _) => memory.to_owned(),
    }
}

fn quoted(word: &str) -> String {
    match word.contains(|c: char| !c.is_alphanumeric() && !"/._-+=,:".contains(c))
        || word.is_empty()
    {
        true => format!("'{}'", word.replace('\'', "'\\''")),
        false => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape() -> Shape {
        Shape {
            name: "gpt".into(),
            ranks: 12,
            ranks_per_node: 8,
            cores: Some(4),
            memory: Some("64G".into()),
            time: Some("12:00:00".into()),
            image: Some("registry/ferrata:1".into()),
        }
    }

    fn command() -> Vec<String> {
        ["train", "my recipe.toml", "--out", "runs/gpt"].map(String::from).to_vec()
    }

    #[test]
    fn a_script_for_slurm_has_the_shape_and_starts_again() {
        let script = slurm(&shape(), &command());
        for line in [
            "#SBATCH --nodes=2",
            "#SBATCH --ntasks=12",
            "#SBATCH --ntasks-per-node=8",
            "#SBATCH --mem-per-cpu=16384M",
            "#SBATCH --time=12:00:00",
            "#SBATCH --signal=B:USR1@300",
            "exec ferrata launch --with srun --requeue --ranks 12 --pass=--cpus-per-task=4 -- \
             train 'my recipe.toml' --out runs/gpt --resume",
        ] {
            assert!(script.lines().any(|l| l == line), "{line} is not in\n{script}");
        }
    }

    #[test]
    fn a_manifest_for_kubernetes_brings_ranks_to_their_launcher() {
        let manifest = kubernetes(&shape(), &command(), "s3cret");
        for part in [
            "args: [\"launch\", \"--with\", \"none\", \"--ranks\", \"12\", \"--listen\", \
             \"gpt-launcher-0-0.gpt:29400\", \"--\", \"train\", \"my recipe.toml\"",
            "{name: FERRATA_SUPERVISOR, value: \"gpt-launcher-0-0.gpt:29400\"}",
            "{name: FERRATA_JOB, value: \"s3cret\"}",
            "parallelism: 12",
            "cpu: \"4\"",
            "memory: \"64G\"",
        ] {
            assert!(manifest.contains(part), "{part} is not in\n{manifest}");
        }
    }
}
