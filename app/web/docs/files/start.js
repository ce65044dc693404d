// Dark as the page at / was set to, or as the system prefers.
const theme = (() => {
  try {
    return localStorage.getItem("resnet-serving-theme");
  } catch {
    return null; // storage is disabled
  }
})();
const isDark = theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
document.documentElement.classList.toggle("dark-mode", isDark);

// What is served here never leaves the browser: no validator, no outside host.
SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  displayRequestDuration: true,
  validatorUrl: null,
  persistAuthorization: false, // an API key stays in this tab's memory
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
});
