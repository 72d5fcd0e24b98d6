// In Airflow's frame a page has Airflow's colours, and its links lead Airflow's window.
(() => {
  let airflow = null;
  try {
    airflow = window.top === window ? null : window.top.document;
  } catch {
    // Another site's frame; the page looks as the system says.
  }
  if (!airflow) return;
  const colours = () => {
    const dark = airflow.documentElement.classList.contains("dark");
    document.documentElement.dataset.theme = dark ? "dark" : "light";
  };
  colours();
  new MutationObserver(colours).observe(airflow.documentElement, { attributeFilter: ["class"] });
  addEventListener("click", (event) => {
    const link = event.target.closest("a[target=_top]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    // A sandboxed frame may not lead the window that it is in; a link of that window may.
    const own = airflow.createElement("a");
    own.href = link.getAttribute("href");
    airflow.body.append(own);
    own.click();
    own.remove();
  });
})();
