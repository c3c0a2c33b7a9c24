//! Drives a real Chromium as a person would, by the texts of labels and buttons.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fantoccini::wd::WebDriverCompatibleCommand;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;
use url::{ParseError, Url};

/// Longer than any page takes on a slow and busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The window sizes. There are pictures of all but the tablet.
const SIZES: [(&str, u32, u32); 3] = [("desktop", 1280, 800), ("tablet", 768, 1024), ("phone", 390, 844)];

/// A browser with its own profile.
pub(crate) struct Browser {
    client: Client,
    base: String,
    screens: PathBuf,
    _driver: Driver,
    _profile: TempDir,
}

/// chromedriver. Its browser ends with it.
struct Driver(Child);

impl Drop for Driver {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Browser {
    /// Opens a browser for the console at `base`. Its screenshots go to a directory named `screens`.
    pub(crate) async fn open(base: &str, screens: &str) -> Self {
        let profile = tempfile::tempdir().expect("a temporary directory can be made");
        let (driver, port) = start_driver();
        let directory = format!("--user-data-dir={}", profile.path().display());
        let options = json!({ "args": [
            "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--window-size=1280,800", directory,
        ]});
        let mut capabilities = serde_json::Map::new();
        capabilities.insert("goog:chromeOptions".to_owned(), options);
        let client = ClientBuilder::new(HttpConnector::new())
            .capabilities(capabilities)
            .connect(&format!("http://127.0.0.1:{port}"))
            .await
            .expect("chromedriver starts a browser");
        let screens =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target").join("console-screens").join(screens);
        std::fs::create_dir_all(&screens).expect("target can be written");
        Self { client, base: base.to_owned(), screens, _driver: driver, _profile: profile }
    }

    /// Closes the browser. After a failed test, the driver closes it.
    pub(crate) async fn close(self) {
        self.client.close().await.expect("the session ends");
    }

    pub(crate) async fn goto(&self, path: &str) {
        self.client.goto(&format!("{}{path}", self.base)).await.expect("the page loads");
    }

    /// The browser's Back button.
    pub(crate) async fn back(&self) {
        self.client.back().await.expect("there is an earlier page");
    }

    pub(crate) async fn reload(&self) {
        self.client.refresh().await.expect("the page loads");
    }

    pub(crate) async fn path(&self) -> String {
        self.client.current_url().await.expect("there is a page").path().to_owned()
    }

    /// Clicks what a person would click to do this: a link, a button, or a radio's label.
    pub(crate) async fn click(&self, words: &str) {
        let xpath = format!(
            "//main//*[self::a or self::button or self::label or self::summary][contains(normalize-space(.), \
             '{words}')] | //nav//*[self::a or self::button][normalize-space(.)='{words}']"
        );
        // The page may still be loading.
        let _ = self.client.wait().at_most(PATIENCE).for_element(Locator::XPath(&xpath)).await;
        for element in self.client.find_all(Locator::XPath(&xpath)).await.expect("the page can be searched") {
            if element.is_displayed().await.expect("the element is there") {
                return element.click().await.expect("it can be clicked");
            }
        }
        panic!("nothing to click says {words:?} on\n{}", self.text().await);
    }

    /// Types into the field with this label, in place of what is there.
    pub(crate) async fn fill(&self, label: &str, value: &str) {
        let xpath = format!("//*[@id=//label[starts-with(normalize-space(.), '{label}')]/@for]");
        let field = self.client.wait().at_most(PATIENCE).for_element(Locator::XPath(&xpath)).await;
        let field = field.unwrap_or_else(|error| panic!("no field {label:?}: {error}"));
        field.clear().await.expect("the field can be emptied");
        field.send_keys(value).await.expect("the field takes text");
    }

    /// The text of the first element that a CSS selector finds.
    pub(crate) async fn read(&self, css: &str) -> String {
        let found = self.client.wait().at_most(PATIENCE).for_element(Locator::Css(css)).await;
        let element = found.unwrap_or_else(|error| panic!("nothing is {css}: {error}"));
        element.text().await.expect("the element has text")
    }

    pub(crate) async fn attribute(&self, css: &str, name: &str) -> Option<String> {
        let found = self.client.wait().at_most(PATIENCE).for_element(Locator::Css(css)).await;
        let element = found.unwrap_or_else(|error| panic!("nothing is {css}: {error}"));
        element.attr(name).await.expect("the element is there")
    }

    pub(crate) async fn press(&self, css: &str) {
        let found = self.client.wait().at_most(PATIENCE).for_element(Locator::Css(css)).await;
        let element = found.unwrap_or_else(|error| panic!("nothing is {css}: {error}"));
        element.click().await.expect("it can be clicked");
    }

    pub(crate) async fn text(&self) -> String {
        self.read("body").await
    }

    /// Waits until the page says something.
    pub(crate) async fn sees(&self, words: &str) {
        let xpath = format!("//body[contains(normalize-space(.), \"{words}\")]");
        let found = self.client.wait().at_most(PATIENCE).for_element(Locator::XPath(&xpath)).await;
        if found.is_err() {
            panic!("the page never says {words:?}; it says\n{}", self.text().await);
        }
    }

    pub(crate) async fn run(&self, script: &str) -> Value {
        self.client.execute(script, Vec::new()).await.expect("the script runs")
    }

    /// Runs a script that calls its last argument when it is done.
    pub(crate) async fn run_async(&self, script: &str) -> Value {
        self.client.execute_async(script, Vec::new()).await.expect("the script runs")
    }

    /// Pictures of the page as it stands, on a desk and on a phone, light and dark.
    pub(crate) async fn picture(&self, name: &str) {
        for (size, width, height) in SIZES {
            self.emulate("Emulation.setDeviceMetricsOverride", metrics(width, height)).await;
            let whole = self.run("return document.documentElement.scrollHeight").await;
            let whole = u32::try_from(whole.as_u64().unwrap_or(0)).unwrap_or(height).clamp(height, 6000);
            let wide = self.run("return document.documentElement.scrollWidth").await;
            assert_eq!(wide, u64::from(width), "{name} is wider than a {size}");
            let cut =
                "return [...document.querySelectorAll('.scroll')].some((e) => e.scrollWidth > e.clientWidth)";
            if size == "desktop" {
                assert_eq!(self.run(cut).await, false, "a table of {name} is cut off on a {size}");
            }
            if size == "tablet" {
                continue;
            }
            self.emulate("Emulation.setDeviceMetricsOverride", metrics(width, whole)).await;
            for scheme in ["light", "dark"] {
                let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
                self.emulate("Emulation.setEmulatedMedia", json!({ "features": [feature] })).await;
                let png = self.client.screenshot().await.expect("the page can be painted");
                let path = self.screens.join(format!("{name}-{size}-{scheme}.png"));
                std::fs::write(path, png).expect("target can be written");
            }
        }
        self.emulate("Emulation.clearDeviceMetricsOverride", json!({})).await;
        self.emulate("Emulation.setEmulatedMedia", json!({ "features": [] })).await;
    }

    /// Writes a picture of the top of the page, for the README.
    pub(crate) async fn photograph(&self, path: &Path, scheme: &str) {
        self.emulate("Emulation.setDeviceMetricsOverride", metrics(1280, 800)).await;
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.emulate("Emulation.setEmulatedMedia", json!({ "features": [feature] })).await;
        let png = self.client.screenshot().await.expect("the page can be painted");
        std::fs::write(path, png).expect("the folder can be written");
    }

    async fn emulate(&self, cmd: &'static str, params: Value) -> Value {
        self.client.issue_cmd(DevTools { cmd, params }).await.expect("the browser takes the command")
    }
}

fn metrics(width: u32, height: u32) -> Value {
    json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false })
}

/// On a free port, which it names.
fn start_driver() -> (Driver, u16) {
    let mut child = Command::new("chromedriver")
        .arg("--port=0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("chromedriver is installed: tests/run does that");
    let stdout = child.stdout.take().expect("it was piped above");
    let driver = Driver(child);
    let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
    let port = lines.find_map(|line| {
        line.split_once("started successfully on port ")?.1.trim_end_matches('.').parse().ok()
    });
    // Read the rest of its output, so that it never blocks.
    std::thread::spawn(move || lines.for_each(drop));
    (driver, port.expect("chromedriver says its port"))
}

/// A command of the DevTools protocol, handed on by chromedriver.
#[derive(Debug)]
struct DevTools {
    cmd: &'static str,
    params: Value,
}

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(&self, base: &Url, session: Option<&str>) -> Result<Url, ParseError> {
        base.join(&format!("session/{}/goog/cdp/execute", session.unwrap_or_default()))
    }

    fn method_and_body(&self, _: &Url) -> (hyper::Method, Option<String>) {
        (hyper::Method::POST, Some(json!({ "cmd": self.cmd, "params": self.params }).to_string()))
    }
}
