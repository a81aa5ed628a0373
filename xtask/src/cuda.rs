//! A build for NVIDIA GPUs, apart from the one for CPUs: a binary with CUDA in it does not start where CUDA's
//! libraries are not.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::runner::{Runner, output, which};
use crate::tests;

/// Newer compilers make code that older drivers refuse, so all are of one version.
const TOOLKIT: &str = "\
nvidia-cuda-nvcc==13.0.88
nvidia-cuda-crt==13.0.88
nvidia-nvvm==13.0.88
nvidia-cuda-runtime==13.0.96
nvidia-cuda-cccl==13.0.85
";
/// What is linked against; where it runs the driver and CUDA's own libraries take their place.
const STUBS: [&str; 5] = ["cuda", "cublas", "cublasLt", "curand", "nvrtc"];
/// What is built unless `--all` is given: what needs no more of CUDA than its compiler.
const NEURAL_VOICES: &str = "duologue/csm-cuda";
const EVERYTHING: &str = "duologue/cuda";

/// Builds into `target/cuda`; `arguments` beyond `--all` go to cargo.
pub(crate) fn build(runner: &mut Runner, arguments: &[String]) -> Outcome {
    let all = arguments.iter().any(|a| a == "--all");
    let further: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|a| *a != "--all")
        .collect();
    let home = match installed() {
        Some(home) => home,
        None if all => {
            return Err(
                "--all needs the CUDA toolkit with nvcc and cuBLAS; put nvcc on the PATH, or set CUDA_HOME"
                    .to_owned(),
            );
        }
        None => from_wheels(runner)?,
    };
    println!("CUDA's compiler is in {}", home.display());
    let capability = std::env::var("CUDA_COMPUTE_CAP").ok().or_else(capability);
    let capability = capability.ok_or_else(|| {
        "no GPU is here to ask what it understands: set CUDA_COMPUTE_CAP, such as 80 (A100), 86 (RTX 30), \
         89 (L4, L40S, RTX 40) or 90 (H100, H200)"
            .to_owned()
    })?;
    let target = runner.target().join("cuda");
    let nvcc = home.join("bin/nvcc");
    let path = std::env::var("PATH").unwrap_or_default();
    let path = format!("{}:{path}", home.join("bin").display());
    let libraries = home.join("lib");
    let flags = std::env::var("RUSTFLAGS").unwrap_or_default();
    let flags = format!("{flags} -L native={}", libraries.display());
    let text = |path: &Path| path.to_string_lossy().into_owned();
    let (target, home, nvcc) = (text(&target), text(&home), text(&nvcc));
    let features = if all { EVERYTHING } else { NEURAL_VOICES };
    println!("The kernels alone take some 12 minutes of processor time.");
    runner.cargo(
        "build for CUDA",
        &[
            &[
                "build",
                "--release",
                "-p",
                "duologue",
                "--features",
                features,
                "--target-dir",
                &target,
            ],
            further.as_slice(),
        ]
        .concat(),
        &[
            ("CUDA_HOME", &home),
            ("CUDA_PATH", &home),
            ("NVCC", &nvcc),
            ("CUDA_COMPUTE_CAP", &capability),
            ("PATH", &path),
            ("RUSTFLAGS", flags.trim()),
        ],
    )?;
    println!("\nThe program is {target}/release/duologue; docs/cuda.md says what it needs to run.");
    Ok(())
}

/// The toolkit of this machine.
fn installed() -> Option<PathBuf> {
    let named = std::env::var_os("CUDA_HOME").or_else(|| std::env::var_os("CUDA_PATH"));
    let beside = which("nvcc").and_then(|nvcc| Some(nvcc.parent()?.parent()?.to_owned()));
    let usual = Some(PathBuf::from("/usr/local/cuda"));
    [named.map(PathBuf::from), beside, usual]
        .into_iter()
        .flatten()
        .find(|home| home.join("bin/nvcc").is_file())
}

/// What the first GPU of this machine understands: `90` for 9.0.
fn capability() -> Option<String> {
    let mut ask = Command::new("nvidia-smi");
    let told = output(ask.args(["--query-gpu=compute_cap", "--format=csv,noheader"]))?;
    Some(told.lines().next()?.trim().replace('.', ""))
}

/// The compiler as Python packages bring it, with empty libraries to link against where there is no toolkit.
fn from_wheels(runner: &mut Runner) -> Outcome<PathBuf> {
    let requirements = runner.target().join("cuda-requirements.txt");
    let failed = |e: std::io::Error| format!("{}: {e}", requirements.display());
    fs::create_dir_all(runner.target()).map_err(failed)?;
    fs::write(&requirements, TOOLKIT).map_err(failed)?;
    let python = tests::python(runner, &requirements, "cuda-venv")?;
    let mut ask = Command::new(&python);
    ask.args([
        "-c",
        "import sysconfig; print(sysconfig.get_paths()['purelib'])",
    ]);
    let packages = output(&mut ask).ok_or("Python does not tell where its packages are")?;
    let home = PathBuf::from(packages).join("nvidia/cu13");
    if !home.join("bin/nvcc").is_file() {
        return Err(format!(
            "the packages brought no {}",
            home.join("bin/nvcc").display()
        ));
    }
    let libraries = home.join("lib");
    link(
        &libraries.join("libcudart.so.13"),
        &libraries.join("libcudart.so"),
    )?;
    for name in STUBS {
        let library = libraries.join(format!("lib{name}.so"));
        if !library.exists() {
            let mut compiler = Command::new("cc");
            compiler
                .args(["-shared", "-x", "c", "/dev/null", "-o"])
                .arg(&library);
            crate::runner::status(&mut compiler)?;
        }
    }
    Ok(home)
}

#[cfg(unix)]
fn link(to: &Path, at: &Path) -> Outcome {
    if at.exists() {
        return Ok(());
    }
    std::os::unix::fs::symlink(to, at).map_err(|e| format!("{}: {e}", at.display()))
}

#[cfg(not(unix))]
fn link(_: &Path, at: &Path) -> Outcome {
    Err(format!(
        "{}: install the CUDA toolkit; its Python packages serve on Linux",
        at.display()
    ))
}
