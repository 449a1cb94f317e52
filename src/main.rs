//! The entry: everything is in the library, see `lib.rs`.

fn main() -> std::process::ExitCode {
    sallyport::cli::main()
}
