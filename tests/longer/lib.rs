//! Nothing: the plugins are this package's examples, the sources of some of `plugins/` under other names.
