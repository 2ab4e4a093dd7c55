//! The page in Chromium: it follows a deploy, fits every screen, and runs nothing that a host says.
//!
//! `MAKUO_PICTURES=DIR` stores what was seen.

use std::path::PathBuf;

use serde_json::json;

use crate::page;
use crate::support::scrape::address_of;
use crate::support::{Browser, Lab, until, write};

/// Widths of a phone, a tablet and a screen in pixels.
const WIDTHS: [u32; 3] = [360, 768, 1440];

/// Looks at the page on all screens: nothing is wider than the window.
fn fits(browser: &mut Browser, name: &str) {
    let pictures = std::env::var_os("MAKUO_PICTURES").map(PathBuf::from);
    for width in WIDTHS {
        for scheme in ["light", "dark"] {
            browser.look(width, 900, scheme);
            let wide = browser.value("document.documentElement.scrollWidth");
            assert!(
                wide.as_u64() <= Some(u64::from(width)),
                "{name}: {wide} of {width}"
            );

            let (back, ink) = ("backgroundColor", "color");
            let colour = |of: &str| format!("getComputedStyle(document.documentElement).{of}");
            let [back, ink] = [back, ink].map(|of| browser.value(&colour(of)));
            assert_ne!(back, ink, "{name} {scheme}");
            if let Some(pictures) = &pictures {
                browser.picture(&pictures.join(format!("{name}-{width}-{scheme}.png")));
            }
        }
    }
}

fn started() -> Option<(Lab, Browser, String)> {
    let lab = page::lab()?;
    let browser = Browser::start(&lab.path("browser"))?;
    let at = format!("http://{}", address_of(&lab.hosts[0]));
    Some((lab, browser, at))
}

#[test]
fn an_open_page_follows_a_deploy_without_a_reload() {
    let Some((lab, mut browser, at)) = started() else {
        return;
    };
    write(&lab.site().join("a"), "a");
    lab.deploy(&[]).exits(0);
    browser.open(&format!("{at}/tree/www"));
    until("both hosts", || {
        browser.text().contains("2 hosts current at www@1")
    });
    browser.value("window.kept = true");

    let mut content = vec![0; 8 << 20];
    fastrand::Rng::with_seed(7).fill(&mut content);
    write(&lab.site().join("large"), &content);
    let running = lab.start(&["deploy", "--json", "www.toml", "--rate", "4Mbit"]);
    until("progress", || {
        let text = browser.text();
        text.contains("2 hosts working") && text.contains(" %, ") && text.contains(" left")
    });
    fits(&mut browser, "working");
    running.wait().exits(0);
    until("the end", || {
        browser.text().contains("2 hosts current at www@2")
    });
    assert_eq!(browser.value("window.kept"), json!(true), "loaded again");
    fits(&mut browser, "tree");
}

#[test]
fn text_of_a_host_is_shown_and_never_run() {
    let Some((mut lab, mut browser, at)) = started() else {
        return;
    };
    let evil = "<img src=x onerror='window.owned=1'><script>window.owned=1</script>";
    let script = format!("echo \"{evil}\"; exit 1");
    write(&lab.path("evil.sh"), &script);
    let hook = format!("health = [\"sh\", \"{}\"]", lab.path("evil.sh").display());
    for line in [
        &hook,
        "health_deadline = \"200ms\"",
        "health_interval = \"100ms\"",
    ] {
        lab.hosts[1].rule(line);
    }
    lab.hosts[1].restart();
    write(&lab.site().join("a"), "a");
    lab.deploy(&[]).exits(4);

    for path in ["/", "/tree/www", "/host/web2"] {
        browser.open(&format!("{at}{path}"));
        if path != "/" {
            until("the text", || browser.text().contains(evil));
        }
        fits(&mut browser, &format!("failed{}", path.replace('/', "-")));
        assert_eq!(browser.value("window.owned"), serde_json::Value::Null);
    }
}

#[test]
fn five_hundred_hosts_fit_every_screen() {
    let Some((lab, mut browser, at)) = started() else {
        return;
    };
    write(&lab.site().join("a"), "a");
    lab.deploy(&[]).exits(0);
    browser.open(&format!("{at}/tree/www"));
    until("both hosts", || browser.text().contains("2 hosts current"));

    // An answer on its way is not shown.
    let many = "closeStream(); asked += 1; \
        const list = document.querySelector('details ul'), one = list.firstElementChild; \
        list.parentElement.open = true; \
        for (let n = 2; n < 500; n++) { \
            const copy = one.cloneNode(true); copy.firstElementChild.textContent = 'web' + n; \
            list.append(copy); } \
        list.children.length";
    assert_eq!(browser.value(many), json!(500));
    fits(&mut browser, "many");
    assert_eq!(
        browser.value("document.querySelectorAll('details li').length"),
        json!(500)
    );
}
