//! What this machine is called.

/// Its name.
#[cfg(unix)]
pub fn name() -> String {
    rustix::system::uname()
        .nodename()
        .to_string_lossy()
        .into_owned()
}

/// Its name.
#[cfg(not(unix))]
pub fn name() -> String {
    std::env::var("COMPUTERNAME").unwrap_or_else(|_| "localhost".to_owned())
}

/// The names by which others may call it, in lower case: its own, without its domain, and that of multicast DNS.
pub fn names() -> Vec<String> {
    let name = name().to_ascii_lowercase();
    let short = name.split('.').next().unwrap_or_default().to_owned();
    let mut names = vec![format!("{short}.local"), name];
    if !names.contains(&short) {
        names.push(short);
    }
    names.retain(|name| !name.is_empty() && name != ".local");
    names
}
