// Theme and language of the page. This file runs before the first paint, so that neither changes visibly.
(() => {
  const root = document.documentElement;

  const read = (key) => {
    try {
      return localStorage.getItem(key);
    } catch {
      return null; // storage is disabled
    }
  };

  const keep = (key, value) => {
    try {
      localStorage.setItem(key, value);
    } catch {
      // The choice applies to this visit only.
    }
  };

  const THEME = "resnet-serving-theme";
  const system = matchMedia("(prefers-color-scheme: dark)");

  const showTheme = (theme) => {
    root.dataset.theme = theme;
    document
      .querySelector('meta[name="theme-color"]')
      .setAttribute("content", theme === "dark" ? "#141512" : "#f4f4f1");
    document.getElementById("theme-button")?.setAttribute("aria-pressed", theme === "dark");
  };

  showTheme(read(THEME) ?? (system.matches ? "dark" : "light"));
  system.addEventListener("change", () => {
    if (!read(THEME)) showTheme(system.matches ? "dark" : "light");
  });

  const LANGUAGE = "resnet-serving-language";
  const LANGUAGES = ["en", "zh-CN"]; // words.js has the words of each
  const isChinese = navigator.language.toLowerCase().startsWith("zh");
  const kept = read(LANGUAGE);
  root.lang = LANGUAGES.includes(kept) ? kept : LANGUAGES[isChinese ? 1 : 0];
  root.classList.add("wordless"); // hides the body until words.js has filled in the words

  document.addEventListener("DOMContentLoaded", () => {
    showTheme(root.dataset.theme);
    document.getElementById("theme-button").addEventListener("click", () => {
      const theme = root.dataset.theme === "dark" ? "light" : "dark";
      keep(THEME, theme);
      showTheme(theme);
    });
    const button = document.getElementById("language-button");
    button.lang = LANGUAGES.find((language) => language !== root.lang); // it is written in that language
    button.addEventListener("click", () => {
      [root.lang, button.lang] = [button.lang, root.lang];
      keep(LANGUAGE, root.lang);
      root.dispatchEvent(new Event("languagechange"));
    });
  });
})();
