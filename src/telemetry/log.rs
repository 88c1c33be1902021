//! The log: turns of state and troubles, on stderr, as text or as one JSON object a line.

use std::fmt;
use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

use super::journal::{self, Priorities};
use crate::config::{LogConfig, LogFormat};

/// Why there is no log.
#[derive(Debug)]
pub enum LogError {
    Filter { said: String, reason: String },
    AlreadySet,
}

/// To be called once in a process, before anything is worth a line.
pub fn init_tracing(log: &LogConfig) -> Result<(), LogError> {
    // https://no-color.org: set and not empty means none, whatever its value.
    let is_colourful = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let reader = match () {
        () if journal::hears_stderr() => Reader::Journal,
        () if is_colourful => Reader::Colourful,
        () => Reader::Plain,
    };
    subscriber(log, reader, std::io::stderr)?.try_init().map_err(|_| LogError::AlreadySet)
}

/// Who is at the other end of stderr.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reader {
    Colourful,
    Plain,
    Journal,
}

fn subscriber<W>(log: &LogConfig, reader: Reader, writer: W) -> Result<Box<dyn tracing::Subscriber + Send + Sync>, LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    // Of directives for one target the later counts, and of those that fit the longer: what the operator says wins.
    let filter = EnvFilter::builder()
        .parse(format!("{QUIET},{}", log.filter))
        .map_err(|error| LogError::Filter { said: log.filter.clone(), reason: error.to_string() })?;
    let is_journal = reader == Reader::Journal;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(Priorities { writer, are_told: is_journal });
    Ok(match log.format {
        LogFormat::Text if is_journal => Box::new(lines.with_ansi(false).without_time().finish()),
        LogFormat::Text => Box::new(lines.with_ansi(reader == Reader::Colourful).finish()),
        LogFormat::Json => Box::new(lines.json().flatten_event(true).with_current_span(false).finish()),
    })
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Filter { said, reason } => {
                write!(f, "{said:?} is not a log filter ({reason}); an example is \"info,pointsman::registry=debug\"")
            }
            Self::AlreadySet => f.write_str("the log of this process was set up already"),
        }
    }
}

impl std::error::Error for LogError {}

/// Libraries that call a client's broken bytes an error or a warning. Whoever can send bytes could fill the log with
/// lines that nobody can act on; what became of a request stands in the access log and the metrics.
const QUIET: &str = "pingora=off,rustls=off,h2=off";

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn written(format: LogFormat, filter: &str) -> String {
        written_for(Reader::Plain, format, filter)
    }

    fn written_for(reader: Reader, format: LogFormat, filter: &str) -> String {
        let written = Written::default();
        let writer = written.clone();
        let log = LogConfig { format, filter: filter.to_owned(), access: None };
        let subscriber = subscriber(&log, reader, move || writer.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!(service = "orders", "Instance verdict changed");
            tracing::debug!("one event");
            tracing::error!(target: "pingora_proxy", "a broken head");
        });
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn text_has_no_colour_codes_off_a_terminal_and_keeps_to_the_filter() {
        let text = written(LogFormat::Text, "info");
        assert!(text.contains("Instance verdict changed service=\"orders\""), "{text}");
        assert!(!text.contains('\u{1b}') && text.lines().count() == 1, "{text}");
    }

    #[test]
    fn the_journal_gets_the_priority_of_each_line_and_has_the_time_itself() {
        let text = written_for(Reader::Journal, LogFormat::Text, "debug,pingora=error");
        let lines: Vec<_> = text.lines().map(|line| line.split_once('>').unwrap()).collect();
        let [(info, first), (debug, _), (error, _)] = lines[..] else { panic!("{text}") };
        assert_eq!((info, debug, error), ("<6", "<7", "<3"));
        assert!(first.starts_with(" INFO pointsman"), "{text}");
        assert!(written_for(Reader::Journal, LogFormat::Json, "info").starts_with("<6>{"));
    }

    #[test]
    fn json_is_one_flat_object_a_line() {
        let text = written(LogFormat::Json, "debug");
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[0]["service"], &lines[0]["level"]), (&"orders".into(), &"INFO".into()));
        assert_eq!(lines[0]["message"], "Instance verdict changed");
    }

    #[test]
    fn libraries_that_complain_of_clients_are_heard_when_asked() {
        for filter in ["info", "debug", "warn,pointsman=trace"] {
            assert!(!written(LogFormat::Text, filter).contains("a broken head"), "{filter}");
        }
        for filter in ["info,pingora_proxy=error", "pingora=debug,info"] {
            assert!(written(LogFormat::Text, filter).contains("a broken head"), "{filter}");
        }
    }

    #[test]
    fn a_wrong_filter_is_named() {
        let log = LogConfig { format: LogFormat::Text, filter: "pointsman=loud".to_owned(), access: None };
        let error = subscriber(&log, Reader::Plain, std::io::sink).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("pointsman=loud") && error.contains("an example"), "{error}");
    }
}
