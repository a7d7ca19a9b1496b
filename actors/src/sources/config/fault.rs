//! What is wrong with a source's configuration, and where it stands.

/// A mistake in a part of a source: what is wrong, and the keys and indices that lead to it from the source's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sources) struct Fault {
    pub(in crate::sources) path: Vec<String>,
    pub(in crate::sources) why: String,
}

impl From<String> for Fault {
    fn from(why: String) -> Self {
        Self { path: Vec::new(), why }
    }
}

impl From<&str> for Fault {
    fn from(why: &str) -> Self {
        why.to_owned().into()
    }
}

/// Says where a mistake stands, from the inside out.
pub(in crate::sources) trait Under<T> {
    /// It stands under this key, or at this index.
    fn under(self, key: impl ToString) -> Result<T, Fault>;
}

impl<T, E: Into<Fault>> Under<T> for Result<T, E> {
    fn under(self, key: impl ToString) -> Result<T, Fault> {
        self.map_err(|error| {
            let mut fault = error.into();
            fault.path.insert(0, key.to_string());
            fault
        })
    }
}

/// What is wrong with a source's configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("source {source_name:?} {why}")]
pub struct SourceConfigError {
    source_name: String,
    path: Vec<String>,
    why: String,
}

impl SourceConfigError {
    /// Which source.
    pub fn source_name(&self) -> &str {
        &self.source_name
    }

    /// The keys and indices that lead from the source's table to what is wrong; none where it is the source as such.
    pub fn path(&self) -> &[String] {
        &self.path
    }

    pub(in crate::sources) fn new(source_name: &str, fault: impl Into<Fault>) -> Self {
        let Fault { path, why } = fault.into();
        Self {
            source_name: source_name.to_owned(),
            path,
            why,
        }
    }
}

/// The word that somebody may have meant.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// How alike two words are that could be one misspelt, from 0 to 1.
    const ALIKE: f64 = 0.75;
    known
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(alike, _)| *alike >= ALIKE)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// ` (did you mean "…"?)`, or nothing.
pub(in crate::sources) fn meant<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> String {
    nearest(word, known)
        .map(|word| format!(" (did you mean {word:?}?)"))
        .unwrap_or_default()
}
