package command

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/greenapi-community/caddy-green-api/internal/address"
)

func addressesCommand() *cobra.Command {
	var format string
	formats := map[string]func(io.Writer, []string){
		formatText: func(w io.Writer, list []string) {
			fmt.Fprintf(w, "# GREEN-API's addresses for WhatsApp, as published on %s. Those for MAX and Telegram are not known.\n", address.VendorDate)
			for _, one := range list {
				fmt.Fprintln(w, one)
			}
		},
		formatJSON: func(w io.Writer, list []string) {
			_ = json.NewEncoder(w).Encode(map[string]any{"date": address.VendorDate, "addresses": list}) // fails only if nobody reads the output
		},
		"nft": func(w io.Writer, list []string) {
			fmt.Fprintf(w, "# GREEN-API's addresses for WhatsApp, as published on %s; use: tcp dport 443 ip saddr @green_api accept\n", address.VendorDate)
			fmt.Fprintln(w, "set green_api {\n\ttype ipv4_addr\n\telements = {")
			for i, one := range list {
				comma := ","
				if i == len(list)-1 {
					comma = ""
				}
				fmt.Fprintf(w, "\t\t%s%s\n", one, comma)
			}
			fmt.Fprintln(w, "\t}\n}")
		},
		"ufw": func(w io.Writer, list []string) {
			for _, one := range list {
				fmt.Fprintf(w, "ufw allow proto tcp from %s to any port 443 comment 'GREEN-API, %s'\n", one, address.VendorDate)
			}
		},
		"nginx": func(w io.Writer, list []string) {
			fmt.Fprintf(w, "# GREEN-API's addresses for WhatsApp, as published on %s\n", address.VendorDate)
			for _, one := range list {
				fmt.Fprintf(w, "allow %s;\n", one)
			}
			fmt.Fprintln(w, "deny all;")
		},
	}
	cmd := &cobra.Command{
		Use:   "addresses",
		Short: "Prints the addresses that GREEN-API publishes",
		Long: `Prints the addresses that GREEN-API publishes for WhatsApp, which are the ones that 'allow green_api'
allows, with the date of the list, or as firewall rules. Those for MAX and Telegram are not known.`,
		Example: `  caddy green-api addresses
  caddy green-api addresses --format ufw | sh`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			write := formats[format]
			if write == nil {
				return usageError(cmd, fmt.Errorf("invalid --format %q; want text, json, nft, ufw or nginx", format))
			}
			var list []string
			for _, prefix := range address.Vendor() {
				list = append(list, prefix.Addr().String())
			}
			write(cmd.OutOrStdout(), list)
			return nil
		},
	}
	cmd.Flags().StringVar(&format, "format", formatText, "text, json, nft, ufw or nginx")
	return cmd
}
