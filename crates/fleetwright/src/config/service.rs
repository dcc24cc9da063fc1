//! The command line of a service: the flags that were given where it was installed, for a process
//! that starts in another directory.

use std::io;
use std::path::{Path, absolute};

use super::Flags;
use super::layers::lookup;
use super::setting::Shape;

/// The arguments that begin with `words` and say what the configuration file and the flags here
/// say. Paths are absolute, since a service does not start in this directory.
///
/// # Errors
/// A path is empty, or this directory is gone.
pub(crate) fn service_arguments(
    words: &[&str],
    file: Option<&Path>,
    flags: &Flags,
) -> io::Result<Vec<String>> {
    let mut arguments: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    if let Some(file) = file {
        arguments.extend(["--config".to_owned(), anywhere(file)?]);
    }
    for (name, text) in flags {
        let (key, is_file) = lookup(name).expect("flags are named for keys");
        arguments.push(key.flag());
        match key.shape {
            // Its presence says it.
            Shape::Switch => {}
            Shape::Text if (key.path || is_file) && !is_program(name, text) => {
                arguments.push(anywhere(Path::new(text))?);
            }
            Shape::Text | Shape::Number | Shape::List => arguments.push(text.clone()),
        }
    }
    Ok(arguments)
}

/// A program that is named without a directory is looked for in `PATH`, wherever the service starts.
fn is_program(key: &str, text: &str) -> bool {
    key == "dialects.saltpeter.salt" && !text.contains('/')
}

fn anywhere(path: &Path) -> io::Result<String> {
    Ok(absolute(path)?.display().to_string())
}
