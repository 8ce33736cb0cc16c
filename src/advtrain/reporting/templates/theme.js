// Before anything is drawn: the theme that the reader chose.
const THEME = "advtrain-theme";
try {
  const chosen = localStorage.getItem(THEME);
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch {
  // A browser that forbids storage shows the system's theme.
}
