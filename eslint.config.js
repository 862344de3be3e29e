import js from "@eslint/js";
import globals from "globals";

export default [
  { ignores: ["**/vendor/", ".venv/", "output/"] },
  js.configs.recommended,
  {
    files: ["webapp/static/**/*.js", "tests/webapp/js/**/*.js", "eslint.config.js"],
    linterOptions: { reportUnusedDisableDirectives: "error" },
    rules: {
      eqeqeq: "error",
      "no-shadow": "error",
      "no-var": "error",
      "prefer-const": "error",
      "max-len": ["error", { code: 130 }],
    },
  },
  { files: ["webapp/static/**/*.js"], languageOptions: { globals: globals.browser } },
  { files: ["tests/webapp/js/**/*.js"], languageOptions: { globals: globals.node } },
];
